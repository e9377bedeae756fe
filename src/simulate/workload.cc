#include "simulate/workload.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "simulate/csv.h"
#include "simulate/random.h"

namespace switchyard::simulate {
namespace {

constexpr double kMaxSeconds = 1e7;
constexpr std::size_t kMaxRequests = 20'000'000;
constexpr std::size_t kMaxModels = 10'000;

// Days since some day, of the proleptic Gregorian calendar.
std::int64_t day_number(std::int64_t year, std::int64_t month, std::int64_t day) {
  if (month <= 2) {
    --year;
    month += 12;
  }
  return 365 * year + year / 4 - year / 100 + year / 400 + (153 * (month - 3) + 2) / 5 + day;
}

// "12.5", "00:01:02.5", "2023-11-16 18:15:46.68". Seconds; `dated` is set where a date was read.
Result<double> parse_time(std::string_view field, std::uint64_t line, bool& dated) {
  double days = 0;
  std::string_view clock = field;
  if (field.size() > 11 && field[4] == '-' && field[7] == '-') {
    const auto year = csv_number(field.substr(0, 4), "year", line, 1970, 9999);
    const auto month = csv_number(field.substr(5, 2), "month", line, 1, 12);
    const auto day = csv_number(field.substr(8, 2), "day", line, 1, 31);
    if (!year) return pass(year.error());
    if (!month) return pass(month.error());
    if (!day) return pass(day.error());
    days = static_cast<double>(day_number(static_cast<std::int64_t>(*year), static_cast<std::int64_t>(*month),
                                          static_cast<std::int64_t>(*day)) -
                               day_number(1970, 1, 1));
    dated = true;
    clock = field.substr(11);
    if (!clock.empty() && clock.back() == 'Z') clock.remove_suffix(1);
  }
  double seconds = 0;
  const auto colons = std::count(clock.begin(), clock.end(), ':');
  if (colons == 0 && !dated) return csv_number(clock, "time", line, 0, kMaxSeconds);
  if (colons != 2)
    return fail(ErrorCode::invalid, "line {}: time '{}' is no clock of HH:MM:SS", line, field.substr(0, 64));
  for (int part = 0; part < 3; ++part) {
    const auto end = std::min(clock.find(':'), clock.size());
    const auto value = csv_number(clock.substr(0, end), "time", line, 0, part == 0 ? 2000 : 60);
    if (!value) return pass(value.error());
    seconds = seconds * 60 + *value;
    clock.remove_prefix(std::min(end + 1, clock.size()));
  }
  return days * 86400 + seconds;
}

Nanos nanos(double seconds) { return Nanos(static_cast<std::int64_t>(std::llround(seconds * 1e9))); }

std::optional<std::size_t> column(const auto& names, std::initializer_list<std::string_view> known) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (std::find(known.begin(), known.end(), names[i]) != known.end()) return i;
  }
  return std::nullopt;
}

void sort_by_time(Workload& workload) {
  std::stable_sort(workload.requests.begin(), workload.requests.end(),
                   [](const WorkloadRequest& a, const WorkloadRequest& b) { return a.time < b.time; });
}

std::uint32_t draw(const Lengths& lengths, Random& random) {
  const double location = std::log(lengths.mean) - lengths.sigma * lengths.sigma / 2;
  const double value = std::exp(location + lengths.sigma * random.normal());
  return static_cast<std::uint32_t>(std::clamp(std::round(value), 1.0, static_cast<double>(lengths.most)));
}

}  // namespace

Result<Workload> parse_workload(std::string_view csv) {
  Workload workload;
  std::map<std::string, std::uint32_t, std::less<>> models;
  std::optional<std::size_t> time, model, input, output;
  std::vector<double> times;
  bool dated = false;
  const auto header = [&](const auto& names) -> Status {
    time = column(names, {"Request Time", "time", "TIMESTAMP"});
    model = column(names, {"Model Name", "model"});
    input = column(names, {"Input Length", "input_tokens", "ContextTokens"});
    output = column(names, {"Output Length", "output_tokens", "GeneratedTokens"});
    if (time && input && output) return {};
    return fail(ErrorCode::invalid,
                "the workload has no column for {}; the first line names the columns: time, model, "
                "input_tokens, output_tokens",
                !time    ? "time"
                : !input ? "input_tokens"
                         : "output_tokens");
  };
  const auto row = [&](std::uint64_t line, const auto& fields) -> Status {
    const auto at = parse_time(fields[*time], line, dated);
    if (!at) return pass(at.error());
    const auto in = csv_number(fields[*input], "input tokens", line, 1, kMaxTokens);
    if (!in) return pass(in.error());
    const auto out = csv_number(fields[*output], "output tokens", line, 1, kMaxTokens);
    if (!out) return pass(out.error());
    const std::string_view name = model ? fields[*model] : std::string_view("default");
    if (name.empty() || name.size() > 256)
      return fail(ErrorCode::invalid, "line {}: the model has no sensible name", line);
    auto found = models.find(name);
    if (found == models.end()) {
      if (models.size() >= kMaxModels)
        return fail(ErrorCode::invalid, "line {}: more than {} models", line, kMaxModels);
      found = models.emplace(std::string(name), static_cast<std::uint32_t>(models.size())).first;
      workload.models.emplace_back(name);
    }
    if (workload.requests.size() >= kMaxRequests) {
      return fail(ErrorCode::invalid, "line {}: more than {} requests", line, kMaxRequests);
    }
    times.push_back(*at);
    workload.requests.push_back({.model = found->second,
                                 .input_tokens = static_cast<std::uint32_t>(*in),
                                 .output_tokens = static_cast<std::uint32_t>(*out)});
    return {};
  };
  if (const Status status = read_csv(csv, header, row); !status) return pass(status.error());
  if (workload.requests.empty()) return fail(ErrorCode::invalid, "the workload has no requests");
  const double first = dated ? *std::min_element(times.begin(), times.end()) : 0;
  for (std::size_t i = 0; i < times.size(); ++i) {
    if (times[i] - first > kMaxSeconds) {
      return fail(ErrorCode::invalid, "the workload is longer than {} seconds", kMaxSeconds);
    }
    workload.requests[i].time = nanos(times[i] - first);
  }
  sort_by_time(workload);
  return workload;
}

Result<Workload> generate_workload(const GeneratorOptions& options) {
  if (!(options.seconds > 0) || options.seconds > kMaxSeconds) {
    return fail(ErrorCode::invalid, "a workload of {} seconds cannot be generated (more than 0, at most {})",
                options.seconds, kMaxSeconds);
  }
  if (options.models.empty() || options.models.size() > kMaxModels) {
    return fail(ErrorCode::invalid, "{} models cannot be generated (1 to {})", options.models.size(),
                kMaxModels);
  }
  for (const Lengths& lengths : {options.input, options.output}) {
    if (!(lengths.mean >= 1) || lengths.mean > kMaxTokens || !(lengths.sigma >= 0) || lengths.sigma > 4 ||
        lengths.most < 1 || lengths.most > kMaxTokens) {
      return fail(ErrorCode::invalid, "token counts with mean {}, sigma {} and at most {} make no sense",
                  lengths.mean, lengths.sigma, lengths.most);
    }
  }
  double expected = 0;
  for (const GeneratedModel& model : options.models) {
    if (!(model.rate >= 0) || model.rate > 1e6) {
      return fail(ErrorCode::invalid, "model '{}': {} requests per second make no sense", model.name,
                  model.rate);
    }
    expected += model.rate * options.seconds;
  }
  if (expected > static_cast<double>(kMaxRequests)) {
    return fail(ErrorCode::invalid, "about {} requests are too many (at most {})", expected, kMaxRequests);
  }
  Workload workload;
  for (std::size_t index = 0; index < options.models.size(); ++index) {
    const GeneratedModel& model = options.models[index];
    workload.models.push_back(model.name);
    if (model.rate == 0) continue;
    Random random(options.seed * 0x9E3779B97F4A7C15 + index);
    random.bits();
    for (double time = random.exponential(1 / model.rate); time < options.seconds;
         time += random.exponential(1 / model.rate)) {
      workload.requests.push_back({.time = nanos(time),
                                   .model = static_cast<std::uint32_t>(index),
                                   .input_tokens = draw(options.input, random),
                                   .output_tokens = draw(options.output, random)});
    }
  }
  sort_by_time(workload);
  return workload;
}

}  // namespace switchyard::simulate
