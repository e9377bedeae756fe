// The forward pass of a decoder-only transformer on one device share, with paged KV.
//
// A step takes any mix of prefill chunks and decode rows. A row's numbers depend on its own tokens alone, not
// on batch-mates, chunk sizes, block placement, thread count, or the CPU's instruction set: every reduction
// runs in an order fixed by the row. One thread calls step() at a time; the runtime has worker threads of its
// own, or those of a workspace, which sleep between steps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "memory/block_pool.h"
#include "model/config.h"
#include "model/image.h"
#include "model/kv_layout.h"
#include "switchyard/result.h"

namespace switchyard::model {

struct RuntimeOptions {
  std::uint32_t threads = 0;     // 0: one per core. A workspace's own number counts where there is one
  std::uint32_t max_rows = 512;  // tokens of one step
  std::uint32_t max_logit_rows = 64;
};

// Consecutive tokens of one request. Chunks that follow each other in a request may be in one step, so that
// each has logits.
struct Chunk {
  std::span<const std::int32_t> tokens;  // to compute in this step
  std::uint32_t position = 0;            // of tokens[0] in the request; all earlier ones are in the KV blocks
  std::span<const BlockId> blocks;       // covering position + tokens.size()
  bool logits = false;                   // logits of the last token are wanted
};

// Called on the stepping thread when the K and V of every row of the step are in the pool for `layer`.
using LayerDone = std::function<void(std::uint32_t layer)>;

// Threads and scratch memory, for runtimes that take turns: what a switch between models keeps alive. Of the
// runtimes that share one, one steps or is created at a time. Grows when a larger model comes; never shrinks.
class RuntimeWorkspace {
 public:
  // `threads`: 0: one per core. Errors: invalid, exhausted.
  static Result<std::shared_ptr<RuntimeWorkspace>> create(std::uint32_t threads);
  virtual ~RuntimeWorkspace() = default;
};

class Runtime {
 public:
  // `kv_pool`: where blocks lie, 64-byte aligned, at least one; owned by the caller. With a workspace that
  // has seen a model of its size a runtime is cheap to make: it only looks its weights up (their bytes are
  // not read yet). Errors: unsupported, invalid, exhausted, and those of an image that lacks weights.
  static Result<std::unique_ptr<Runtime>> create(std::shared_ptr<const ModelImage> image,
                                                 std::span<std::byte> kv_pool, const RuntimeOptions& options,
                                                 std::shared_ptr<RuntimeWorkspace> workspace = {});
  virtual ~Runtime() = default;

  // `logits` receives vocab floats for each chunk that wants them, in the order of the chunks.
  // Errors: invalid (token or block out of range, too many rows, blocks too few), exhausted. Nothing is
  // computed then.
  virtual Status step(std::span<const Chunk> chunks, std::span<float> logits,
                      const LayerDone& layer_done = {}) = 0;

  virtual const ModelConfig& config() const = 0;
  virtual const KvLayout& kv_layout() const = 0;
};

KvLayout kv_layout(const ModelConfig& config);

}  // namespace switchyard::model
