#include "profile_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "step_timer.h"

namespace switchyard::bench {
namespace {

using simulate::MeasuredStep;
using simulate::ProfiledModel;

// The rows of a table, which have a prefill, a decode step or both.
void record(std::vector<MeasuredStep>& steps, const ProfilePoint& point, double seconds) {
  const std::uint32_t batch = std::max(point.batch, 1u);
  auto row = std::find_if(steps.begin(), steps.end(), [&](const MeasuredStep& step) {
    return step.input_tokens == point.tokens && step.batch == batch;
  });
  if (row == steps.end()) row = steps.insert(row, {.input_tokens = point.tokens, .batch = batch});
  (point.batch == 0 ? row->prefill_ms : row->decode_ms) = seconds * 1e3;
}

Result<ProfiledModel> measure_model(const ProfileOptions& options, const ProfileCheckpoint& checkpoint,
                                    const ProfileProgress& progress, MachineProfile& machine) {
  auto image = model::ModelImage::open(checkpoint.path);
  if (!image) return pass(image.error());
  const model::ModelConfig& config = (*image)->config();
  const std::uint64_t block_bytes = model::kv_layout(config).block_bytes();
  ProfiledModel result{.name = checkpoint.name,
                       .bytes = (*image)->bytes().size(),
                       .kv_bytes_per_token = block_bytes / model::kBlockTokens};
  const std::uint64_t kv_tokens = options.kv_bytes / block_bytes * model::kBlockTokens;
  const auto points = profile_points(options, checkpoint.name, config.context, kv_tokens, machine.left_out);
  if (points.size() < 2) {
    return fail(ErrorCode::invalid,
                "{}: nothing can be measured: its context is {} tokens, KV memory holds {}", checkpoint.name,
                config.context, kv_tokens);
  }
  const TimePoint begin = monotonic_now();
  // Of the largest image: small ones fit caches.
  const auto larger = [&](const ProfiledModel& other) { return other.bytes >= result.bytes; };
  if (std::none_of(machine.models.begin(), machine.models.end(), larger)) {
    machine.accelerator.link_bytes_per_second = copy_rate(**image, options.seconds);
  }

  StepTimerOptions asked{.threads = options.threads,
                         .chunk = options.chunk,
                         .seconds = options.seconds,
                         .patience = options.limit / 50};
  for (const ProfilePoint& point : points) {
    if (point.batch == 0) {
      asked.longest = std::max(asked.longest, point.tokens);
    } else {
      asked.batch = std::max(asked.batch, point.batch);
      asked.decode_tokens = std::max(asked.decode_tokens, decode_tokens(point.batch, point.tokens));
    }
  }
  auto timer = StepTimer::create(*std::move(image), asked);
  if (!timer) return fail_at(checkpoint.name, timer.error());
  for (std::size_t i = 0; i < points.size(); ++i) {
    const ProfilePoint& point = points[i];
    if (i >= 2 && to_seconds(monotonic_now() - begin) > options.limit) {
      machine.left_out.push_back(fmt::format("{}: {} of {} measurements, for lack of time", checkpoint.name,
                                             points.size() - i, points.size()));
      break;
    }
    progress(point.batch == 0 ? fmt::format("{}: prefill of {} tokens", checkpoint.name, point.tokens)
                              : fmt::format("{}: decode of {} requests at {} tokens", checkpoint.name,
                                            point.batch, point.tokens),
             i, points.size());
    const auto time =
        point.batch == 0 ? (*timer)->prefill(point.tokens) : (*timer)->decode(point.batch, point.tokens);
    if (!time) return fail_at(checkpoint.name, time.error());
    record(result.steps, point, std::max(*time, 1e-6));
  }
  return result;
}

}  // namespace

void ProfileOptions::make_quick() {
  prompts = {16, 128, 512};
  rows = {1, 4, 16};
  contexts = {64, 512};
  seconds = 0.05;
  limit = 20;
}

std::vector<ProfilePoint> profile_points(const ProfileOptions& options, const std::string& name,
                                         std::uint32_t context, std::uint64_t kv_tokens,
                                         std::vector<std::string>& left_out) {
  const std::set<std::uint32_t> rows(options.rows.begin(), options.rows.end());
  const std::set<std::uint32_t> contexts(options.contexts.begin(), options.contexts.end());
  std::set<std::uint32_t> lengths(options.prompts.begin(), options.prompts.end());
  lengths.insert(contexts.begin(), contexts.end());
  std::vector<ProfilePoint> points;
  const auto fits = [&](std::uint32_t tokens, std::uint32_t batch) {
    // A decode step adds a token to each.
    const char* why = tokens >= context                                        ? "its context is too short"
                      : decode_tokens(std::max(batch, 1u), tokens) > kv_tokens ? "KV memory is too small"
                                                                               : nullptr;
    if (why == nullptr) return true;
    left_out.push_back(fmt::format("{}: {} requests of {} tokens: {}", name, batch, tokens, why));
    return false;
  };
  // Every row with a single request has both times.
  for (const std::uint32_t tokens : lengths) {
    if (tokens == 0 || !fits(tokens, 1)) continue;
    points.push_back({tokens, 0});
    points.push_back({tokens, 1});
  }
  for (const std::uint32_t batch : rows) {
    if (batch <= 1) continue;
    for (const std::uint32_t tokens : contexts) {
      if (tokens > 0 && tokens < context && fits(tokens, batch)) points.push_back({tokens, batch});
    }
  }
  return points;
}

Result<MachineProfile> measure_profile(const ProfileOptions& options, const ProfileProgress& progress) {
  if (options.models.empty() || options.contexts.empty() || options.chunk == 0) {
    return fail(ErrorCode::invalid, "a profile needs a model, a context and chunks of at least a token");
  }
  MachineProfile machine;
  std::uint64_t largest = 0;
  for (const ProfileCheckpoint& checkpoint : options.models) {
    auto model = measure_model(options, checkpoint, progress, machine);
    if (!model) return pass(model.error());
    largest = std::max(largest, model->bytes);
    machine.models.push_back(*std::move(model));
  }
  // What simulate::make_cluster() takes off again.
  machine.accelerator.memory_bytes =
      static_cast<std::uint64_t>(static_cast<double>(2 * largest + options.kv_bytes) / 0.92) + 1;
  return machine;
}

}  // namespace switchyard::bench
