#include "step_timer.h"

#include <cstring>
#include <new>
#include <thread>

#include "memory/block_pool.h"

namespace switchyard::bench {

using model::Chunk;
using model::KvLayout;

std::uint64_t decode_tokens(std::uint32_t batch, std::uint32_t context) {
  return std::uint64_t{batch} * KvLayout::blocks_for(context + 1) * model::kBlockTokens;
}

StepTimer::StepTimer(std::shared_ptr<const model::ModelImage> image, const StepTimerOptions& options)
    : image_(std::move(image)),
      options_(options),
      threads_(options.threads != 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency())) {
  if (options_.chunk == 0) options_.chunk = options_.longest;
}

Result<std::unique_ptr<StepTimer>> StepTimer::create(std::shared_ptr<const model::ModelImage> image,
                                                     const StepTimerOptions& options) {
  auto timer = std::unique_ptr<StepTimer>(new StepTimer(std::move(image), options));
  const StepTimerOptions& asked = timer->options_;
  const model::ModelConfig& config = timer->image_->config();
  const KvLayout layout = model::kv_layout(config);
  const std::uint64_t blocks = std::max<std::uint64_t>(KvLayout::blocks_for(asked.longest),
                                                       asked.decode_tokens / model::kBlockTokens + 1);
  const std::uint64_t units = block_units(layout.block_bytes());
  const std::uint64_t pool_bytes = blocks * units * kBlockUnit;
  try {
    timer->bytes_.resize(pool_bytes + 64);
    timer->blocks_.resize(blocks);
    timer->tokens_.resize(std::max(asked.longest, asked.batch));
    timer->logits_.resize(std::size_t{asked.batch} * config.vocab);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::exhausted,
                "there is no memory for {:.1f} GB of keys and values: measure fewer requests or shorter ones",
                static_cast<double>(pool_bytes) / 1e9);
  }
  const auto misaligned = reinterpret_cast<std::uintptr_t>(timer->bytes_.data()) % 64;
  timer->pool_ = std::span(timer->bytes_).subspan(64 - misaligned, pool_bytes);
  for (std::uint64_t i = 0; i < blocks; ++i) timer->blocks_[i] = static_cast<BlockId>(i * units);
  for (std::size_t i = 0; i < timer->tokens_.size(); ++i) {
    timer->tokens_[i] = static_cast<std::int32_t>(i * 7919 % config.vocab);
  }
  auto runtime = model::Runtime::create(timer->image_, timer->pool_,
                                        {.threads = timer->threads_,
                                         .max_rows = std::max(asked.chunk, asked.batch),
                                         .max_logit_rows = asked.batch});
  if (!runtime) return pass(runtime.error());
  timer->runtime_ = *std::move(runtime);
  return timer;
}

Result<double> StepTimer::prefill(std::uint32_t tokens) {
  const auto once = [&]() -> Status {
    for (std::uint32_t done = 0; done < tokens; done += options_.chunk) {
      const std::uint32_t count = std::min(options_.chunk, tokens - done);
      const Chunk chunk{.tokens = std::span(tokens_).subspan(done, count),
                        .position = done,
                        .blocks = blocks_,
                        .logits = done + count == tokens};
      if (Status stepped = runtime_->step({&chunk, 1}, logits_); !stepped) return stepped;
    }
    return {};
  };
  return median_time(options_.seconds, once, options_.patience);
}

Result<double> StepTimer::decode(std::uint32_t batch, std::uint32_t context) {
  const std::uint32_t each = KvLayout::blocks_for(context + 1);
  std::vector<Chunk> chunks;
  for (std::uint32_t i = 0; i < batch; ++i) {
    chunks.push_back({.tokens = std::span(tokens_).subspan(i, 1),
                      .position = context,
                      .blocks = std::span(blocks_).subspan(std::size_t{i} * each, each),
                      .logits = true});
  }
  return median_time(
      options_.seconds, [&] { return runtime_->step(chunks, logits_); }, options_.patience);
}

double copy_rate(const model::ModelImage& image, double seconds) {
  const std::span<const std::byte> bytes = image.bytes();
  std::vector<std::byte> target(bytes.size());
  const auto time = median_time(seconds, [&]() -> Status {
    std::memcpy(target.data(), bytes.data(), bytes.size());
    return {};
  });
  return static_cast<double>(bytes.size()) / std::max(*time, 1e-9);
}

}  // namespace switchyard::bench
