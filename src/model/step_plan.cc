#include "model/step_plan.h"

#include <algorithm>

#include "model/cpu/kernels.h"

namespace switchyard::model {
namespace {

Status check(std::size_t index, const Chunk& chunk, const StepPlan::Limits& limits) {
  if (chunk.tokens.empty()) return fail(ErrorCode::invalid, "chunk {} has no tokens", index);
  const std::size_t end = chunk.position + chunk.tokens.size();
  if (end > limits.positions) {
    return fail(ErrorCode::invalid, "chunk {} ends at position {}; this runtime has {} positions", index, end,
                limits.positions);
  }
  if (chunk.blocks.size() < KvLayout::blocks_for(static_cast<std::uint32_t>(end))) {
    return fail(ErrorCode::invalid, "chunk {} has {} blocks of {} tokens; its {} tokens need {}", index,
                chunk.blocks.size(), kBlockTokens, end,
                KvLayout::blocks_for(static_cast<std::uint32_t>(end)));
  }
  for (std::size_t i = 0; i < KvLayout::blocks_for(static_cast<std::uint32_t>(end)); ++i) {
    if (block_offset(chunk.blocks[i]) > limits.pool_bytes - limits.block_bytes) {
      return fail(ErrorCode::invalid, "chunk {} names block {} ({} bytes at {}); the pool has {} bytes",
                  index, chunk.blocks[i], limits.block_bytes, block_offset(chunk.blocks[i]),
                  limits.pool_bytes);
    }
  }
  for (const std::int32_t token : chunk.tokens) {
    if (token < 0 || static_cast<std::uint32_t>(token) >= limits.config->vocab) {
      return fail(ErrorCode::invalid, "chunk {} has token {}; the vocabulary has {}", index, token,
                  limits.config->vocab);
    }
  }
  return {};
}

}  // namespace

std::uint32_t AttentionTile::segments() const {
  return (position + rows + cpu::kSegmentTokens - 1) / cpu::kSegmentTokens;
}

StepPlan::StepPlan(std::uint32_t max_rows, std::uint32_t max_logit_rows) {
  rows.reserve(max_rows);
  tiles.reserve(max_rows);
  last_tiles.reserve(max_logit_rows);
  logit_rows.reserve(max_logit_rows);
}

Status StepPlan::fill(std::span<const Chunk> chunks, std::size_t logits, const Limits& limits) {
  std::size_t wanted = 0;
  std::size_t total = 0;
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    if (auto status = check(i, chunks[i], limits); !status) return status;
    total += chunks[i].tokens.size();
    wanted += chunks[i].logits ? 1 : 0;
    if (total > limits.max_rows) {
      return fail(ErrorCode::invalid, "a step of more than {} tokens; this runtime takes {}", total,
                  limits.max_rows);
    }
  }
  if (wanted > limits.max_logit_rows) {
    return fail(ErrorCode::invalid, "{} chunks want logits; this runtime has room for {}", wanted,
                limits.max_logit_rows);
  }
  if (logits < wanted * limits.config->vocab) {
    return fail(ErrorCode::invalid, "{} floats for the logits of {} chunks; {} needed", logits, wanted,
                wanted * limits.config->vocab);
  }

  rows.clear();
  tiles.clear();
  last_tiles.clear();
  logit_rows.clear();
  positions = 0;
  for (const Chunk& chunk : chunks) {
    const auto first = static_cast<std::uint32_t>(rows.size());
    const auto count = static_cast<std::uint32_t>(chunk.tokens.size());
    positions = std::max(positions, chunk.position + count);
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::uint32_t position = chunk.position + i;
      rows.push_back({chunk.tokens[i], position, chunk.blocks[position / kBlockTokens]});
    }
    for (std::uint32_t i = 0; i < count; i += limits.tile_rows) {
      tiles.push_back({.blocks = chunk.blocks.data(),
                       .first_row = first + i,
                       .out_row = first + i,
                       .rows = std::min(limits.tile_rows, count - i),
                       .position = chunk.position + i});
    }
    if (chunk.logits) {
      last_tiles.push_back({.blocks = chunk.blocks.data(),
                            .first_row = first + count - 1,
                            .out_row = static_cast<std::uint32_t>(logit_rows.size()),
                            .rows = 1,
                            .position = chunk.position + count - 1});
      logit_rows.push_back(first + count - 1);
    }
  }
  return {};
}

}  // namespace switchyard::model
