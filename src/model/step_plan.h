// The rows of one step: which chunk and position each belongs to, and how attention takes them together.
//
// Filled anew for every step without allocating. Written by the stepping thread, read by all while a step
// runs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "memory/block_pool.h"
#include "model/config.h"
#include "model/kv_layout.h"
#include "model/runtime.h"
#include "switchyard/result.h"

namespace switchyard::model {

struct StepRow {
  std::int32_t token = 0;
  std::uint32_t position = 0;
  BlockId block = 0;  // that takes the row's keys and values
};

// Consecutive rows of one chunk.
struct AttentionTile {
  const BlockId* blocks = nullptr;
  std::uint32_t first_row = 0;  // where q is
  std::uint32_t out_row = 0;    // where the result goes
  std::uint32_t rows = 0;
  std::uint32_t position = 0;  // of the first row

  std::uint32_t segments() const;
};

struct StepPlan {
  std::vector<StepRow> rows;
  std::vector<AttentionTile> tiles;
  // The last layer computes nothing but keys and values for rows whose logits nobody wants.
  std::vector<AttentionTile> last_tiles;
  std::vector<std::uint32_t> logit_rows;  // ascending
  std::uint32_t positions = 0;            // above all of the step

  StepPlan(std::uint32_t max_rows, std::uint32_t max_logit_rows);

  struct Limits {
    const ModelConfig* config = nullptr;
    std::uint64_t pool_bytes = 0;
    std::uint64_t block_bytes = 0;
    std::uint32_t positions = 0;
    std::uint32_t max_rows = 0;
    std::uint32_t max_logit_rows = 0;
    std::uint32_t tile_rows = 0;
  };
  // Errors: invalid.
  Status fill(std::span<const Chunk> chunks, std::size_t logits, const Limits& limits);
};

}  // namespace switchyard::model
