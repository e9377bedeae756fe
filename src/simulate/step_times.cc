#include "simulate/step_times.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "simulate/csv.h"

namespace switchyard::simulate {
namespace {

// Weighted least squares with N coefficients by the normal equations; weights 1 / value^2 (relative errors).
template <std::size_t N>
std::array<double, N> least_squares(const std::vector<std::array<double, N>>& inputs,
                                    const std::vector<double>& values) {
  std::array<std::array<double, N + 1>, N> m{};
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    const double weight = 1 / (values[k] * values[k]);
    for (std::size_t i = 0; i < N; ++i) {
      for (std::size_t j = 0; j < N; ++j) m[i][j] += weight * inputs[k][i] * inputs[k][j];
      m[i][N] += weight * inputs[k][i] * values[k];
    }
  }
  std::array<double, N> result{};
  for (std::size_t i = 0; i < N; ++i) {
    std::size_t pivot = i;
    for (std::size_t r = i + 1; r < N; ++r) {
      if (std::abs(m[r][i]) > std::abs(m[pivot][i])) pivot = r;
    }
    std::swap(m[i], m[pivot]);
    if (std::abs(m[i][i]) < 1e-12) return result;
    for (std::size_t r = 0; r < N; ++r) {
      if (r == i) continue;
      const double factor = m[r][i] / m[i][i];
      for (std::size_t c = i; c <= N; ++c) m[r][c] -= factor * m[i][c];
    }
  }
  for (std::size_t i = 0; i < N; ++i) result[i] = std::max(0.0, m[i][N] / m[i][i]);
  return result;
}

}  // namespace

StepTimes StepTimes::linear(const LinearTimes& times) {
  StepTimes result;
  result.fit_ = times;
  return result;
}

StepTimes StepTimes::scaled(double factor) const {
  StepTimes result = *this;
  result.factor_ *= factor;
  return result;
}

double StepTimes::along(const std::vector<Point>& points, double x, double slope) {
  if (x <= points.front().x) return points.front().ms;
  if (x >= points.back().x) return points.back().ms + (x - points.back().x) * slope;
  const auto next =
      std::upper_bound(points.begin(), points.end(), x, [](double v, const Point& p) { return v < p.x; });
  const auto before = next - 1;
  return before->ms + (next->ms - before->ms) * (x - before->x) / (next->x - before->x);
}

Result<StepTimes> StepTimes::measured(std::vector<MeasuredStep> points) {
  StepTimes result;
  std::sort(points.begin(), points.end(), [](const MeasuredStep& a, const MeasuredStep& b) {
    return std::pair(a.batch, a.input_tokens) < std::pair(b.batch, b.input_tokens);
  });
  std::vector<std::array<double, 2>> prefill_inputs;
  std::vector<double> prefill_values;
  for (const MeasuredStep& point : points) {
    if (point.batch != 1 || point.prefill_ms == 0) continue;
    const double least = result.prefill_.empty() ? 0 : result.prefill_.back().ms;
    if (!result.prefill_.empty() && result.prefill_.back().x >= point.input_tokens) continue;
    result.prefill_.push_back({static_cast<double>(point.input_tokens), std::max(least, point.prefill_ms)});
    prefill_inputs.push_back({1, static_cast<double>(point.input_tokens)});
    prefill_values.push_back(point.prefill_ms);
  }
  if (result.prefill_.empty()) {
    return fail(ErrorCode::invalid,
                "there is no prefill measured with batch 1, which prefill times are taken from");
  }
  const auto prefill = least_squares<2>(prefill_inputs, prefill_values);
  result.fit_.prefill_base_ms = prefill[0];
  result.fit_.prefill_token_ms = prefill[1];
  if (result.prefill_.size() >= 2) {
    // The last interval tells best how longer prompts go on.
    const auto& last = result.prefill_.back();
    const auto& before = result.prefill_[result.prefill_.size() - 2];
    result.fit_.prefill_token_ms = std::max(prefill[1], (last.ms - before.ms) / (last.x - before.x));
  }

  std::vector<std::array<double, 3>> decode_inputs;
  std::vector<double> decode_values;
  for (const MeasuredStep& point : points) {
    const double tokens = static_cast<double>(point.input_tokens) * point.batch;
    if (point.decode_ms == 0) continue;
    const bool split = point.prefill_ms > 0 &&
                       point.prefill_ms < 0.75 * along(result.prefill_, tokens, result.fit_.prefill_token_ms);
    if (split) continue;
    if (result.decode_.empty() || result.decode_.back().rows != point.batch) {
      result.decode_.push_back({static_cast<double>(point.batch), {}});
    }
    auto& line = result.decode_.back().points;
    if (!line.empty() && line.back().x >= point.input_tokens) continue;
    line.push_back({static_cast<double>(point.input_tokens), point.decode_ms});
    decode_inputs.push_back({1, tokens, static_cast<double>(point.batch)});
    decode_values.push_back(point.decode_ms);
  }
  if (decode_values.empty()) return fail(ErrorCode::invalid, "there is no measurement of a decode step");
  const auto decode = least_squares<3>(decode_inputs, decode_values);
  result.fit_.decode_base_ms = decode[0];
  result.fit_.decode_context_ms = decode[1];
  result.fit_.decode_row_ms = decode[2];
  return result;
}

double StepTimes::prefill(std::uint64_t tokens) const {
  const double x = static_cast<double>(tokens);
  if (prefill_.empty()) return factor_ * (fit_.prefill_base_ms + fit_.prefill_token_ms * x);
  return factor_ * along(prefill_, x, fit_.prefill_token_ms);
}

double StepTimes::decode(std::uint32_t rows, std::uint64_t context) const {
  const double count = std::max<std::uint32_t>(rows, 1);
  const double tokens = static_cast<double>(context);
  if (decode_.empty()) {
    return factor_ * (fit_.decode_base_ms + fit_.decode_context_ms * tokens + fit_.decode_row_ms * count);
  }
  const double each = tokens / count;
  const auto at = [&](const Line& line) {
    return along(line.points, each, fit_.decode_context_ms * line.rows);
  };
  if (count <= decode_.front().rows) return factor_ * at(decode_.front());
  const Line& last = decode_.back();
  if (count >= last.rows) {
    return factor_ * (at(last) + (count - last.rows) * (fit_.decode_row_ms + fit_.decode_context_ms * each));
  }
  const auto next = std::upper_bound(decode_.begin(), decode_.end(), count,
                                     [](double v, const Line& line) { return v < line.rows; });
  const auto before = next - 1;
  const double low = at(*before);
  return factor_ * (low + (at(*next) - low) * (count - before->rows) / (next->rows - before->rows));
}

Result<std::map<std::string, StepTimes>> parse_profile(std::string_view csv, std::string_view gpu) {
  constexpr std::array<std::string_view, 6> kColumns = {
      "model", "gpu", "input_tokens_per_request", "batch", "prefill_p50_ms", "decode_step_p50_ms"};
  std::array<std::size_t, 6> column{};
  std::map<std::string, std::vector<MeasuredStep>> points;
  std::map<std::string, int> gpus;
  const auto header = [&](const auto& names) -> Status {
    for (std::size_t i = 0; i < kColumns.size(); ++i) {
      const auto found = std::find(names.begin(), names.end(), kColumns[i]);
      if (found == names.end())
        return fail(ErrorCode::invalid, "the profile has no column '{}'", kColumns[i]);
      column[i] = static_cast<std::size_t>(found - names.begin());
    }
    return {};
  };
  const auto row = [&](std::uint64_t line, const auto& fields) -> Status {
    ++gpus[std::string(fields[column[1]])];
    if (fields[column[1]] != gpu) return {};
    std::array<double, 4> values{};
    for (std::size_t i = 0; i < 4; ++i) {
      const bool count = i < 2;
      if (!count && fields[column[i + 2]].empty()) continue;
      const auto value = csv_number(fields[column[i + 2]], kColumns[i + 2], line, count ? 1 : 1e-6, 1e7);
      if (!value) return pass(value.error());
      values[i] = *value;
    }
    points[std::string(fields[column[0]])].push_back(
        {static_cast<std::uint32_t>(values[0]), static_cast<std::uint32_t>(values[1]), values[2], values[3]});
    return {};
  };
  if (const Status status = read_csv(csv, header, row); !status) return pass(status.error());
  if (points.empty()) {
    std::string known;
    for (const auto& [name, count] : gpus) known += (known.empty() ? "" : ", ") + name;
    return fail(ErrorCode::invalid, "the profile has no measurement of GPU '{}'; it has {}", gpu, known);
  }
  std::map<std::string, StepTimes> result;
  for (auto& [name, list] : points) {
    auto times = StepTimes::measured(std::move(list));
    if (!times) return fail_at(name, times.error());
    result.emplace(name, *std::move(times));
  }
  return result;
}

}  // namespace switchyard::simulate
