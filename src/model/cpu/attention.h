// Attention over paged keys and values. For kernel files only.
//
// The order of operations of one (row, head), which depends on the row's position alone: tokens are taken in
// segments of 256. Within one, for each token ascending: score = scale * sum over d, ascending, of
// fma(k[d], q[d]); the maximum; weights exp(score - maximum), summed over the blocks of 16 tokens lane by
// lane and then across the lanes; sums[d] = fma(weight, v[d]) over the tokens, ascending. Segments are merged
// in order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/cpu/kernels.h"
#include "model/cpu/math.h"

namespace switchyard::model::cpu {
namespace {

// Tokens of a KV block: one to a lane.
inline constexpr std::uint32_t kBlock = kLanes;

// keys[d][token], zeros for tokens from `count` on, whose bytes may be anything.
template <class S>
void load_keys(const std::byte* from, std::uint32_t head_dim, std::uint32_t count, float* keys) {
  for (std::uint32_t d = 0; d < head_dim; d += kLanes) {
    typename S::V rows[kBlock];
    typename S::V columns[kBlock];
    const std::byte* at = from + std::size_t{2} * d;
    if (count == kBlock) {
#pragma GCC unroll 16
      for (std::uint32_t t = 0; t < kBlock; ++t) rows[t] = S::load_half(at + std::size_t{2} * t * head_dim);
    } else {
      for (std::uint32_t t = 0; t < kBlock; ++t) {
        rows[t] = t < count ? S::load_half(at + std::size_t{2} * t * head_dim) : S::zero();
      }
    }
    S::transpose(rows, columns);
#pragma GCC unroll 16
    for (std::uint32_t i = 0; i < kLanes; ++i) S::store(keys + (d + i) * kBlock, columns[i]);
  }
}

// Scores of `kCount` queries and `kBlocks` consecutive blocks, whose keys are `keys_stride` floats apart.
template <class S, int kCount, int kBlocks>
[[gnu::noinline]] void score(const float* keys, std::size_t keys_stride, const float* const* q,
                             std::uint32_t head_dim, float scale, float* const* scores) {
  typename S::V sums[kCount][kBlocks];
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) {
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) sums[i][b] = S::zero();
  }
  for (std::uint32_t d = 0; d < head_dim; ++d) {
    typename S::V key[kBlocks];
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b)
      key[b] = S::load(keys + static_cast<unsigned>(b) * keys_stride + d * kBlock);
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      const auto value = S::set(q[i][d]);
#pragma GCC unroll 4
      for (int b = 0; b < kBlocks; ++b) sums[i][b] = S::fma(key[b], value, sums[i][b]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) {
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) {
      S::store(scores[i] + static_cast<unsigned>(b) * kBlock, S::mul(sums[i][b], S::set(scale)));
    }
  }
}

// sums[d .. d + 16 * kVectors) += weights[t] * values[t] for t < count, for `kCount` queries whose weights
// and sums are so many floats apart.
template <class S, int kCount, int kVectors>
[[gnu::noinline]] void add_values(const float* values, std::uint32_t head_dim, const float* weights,
                                  std::uint32_t count, float* sums, std::size_t sums_stride) {
  typename S::V acc[kCount][kVectors];
#pragma GCC unroll 6
  for (int q = 0; q < kCount; ++q) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i)
      acc[q][i] = S::load(sums + static_cast<unsigned>(q) * sums_stride + 16 * i);
  }
  for (std::uint32_t t = 0; t < count; ++t) {
    const float* value = values + t * head_dim;
    typename S::V vectors[kVectors];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) vectors[i] = S::load(value + 16 * i);
#pragma GCC unroll 6
    for (int q = 0; q < kCount; ++q) {
      const auto weight = S::set(weights[static_cast<unsigned>(q) * kSegmentTokens + t]);
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) acc[q][i] = S::fma(weight, vectors[i], acc[q][i]);
    }
  }
#pragma GCC unroll 6
  for (int q = 0; q < kCount; ++q) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i)
      S::store(sums + static_cast<unsigned>(q) * sums_stride + 16 * i, acc[q][i]);
  }
}

// Tokens of the block at `start` that position `position` sees.
inline std::uint32_t visible(std::uint32_t position, std::uint32_t start) {
  if (position < start) return 0;
  const std::uint32_t count = position - start + 1;
  return count < kBlock ? count : kBlock;
}

// later follows partial: {sums[head_dim], maximum, weight}.
template <class S>
void merge(float* partial, const float* later, std::uint32_t head_dim) {
  const float maximum = partial[head_dim] > later[head_dim] ? partial[head_dim] : later[head_dim];
  alignas(64) float factor[kLanes];
  S::store(factor, exponential<S>(S::set(partial[head_dim] - maximum)));
  const auto keep = S::set(factor[0]);
  S::store(factor, exponential<S>(S::set(later[head_dim] - maximum)));
  const auto add = S::set(factor[0]);
  for (std::uint32_t d = 0; d < head_dim; d += kLanes) {
    const auto kept = S::mul(S::load(partial + d), keep);
    S::store(partial + d, S::fma(S::load(later + d), add, kept));
  }
  const auto kept = S::mul(S::set(partial[head_dim + 1]), keep);
  S::store(factor, S::fma(S::set(later[head_dim + 1]), add, kept));
  partial[head_dim] = maximum;
  partial[head_dim + 1] = factor[0];
}

template <class S>
void finish_attention(const float* partial, std::uint32_t head_dim, float* out) {
  const auto weight = S::set(partial[head_dim + 1]);
  for (std::uint32_t d = 0; d < head_dim; d += kLanes)
    S::store(out + d, S::div(S::load(partial + d), weight));
}

template <class S>
struct Attention {
  const AttentionTask& task;
  float* keys;     // [kScoredBlocks][head_dim][16]
  float* values;   // [16][head_dim]
  float* scores;   // [query][256]
  float* results;  // [query][head_dim + 2], rounded up to lanes
  std::size_t result_stride;
  std::uint32_t queries;

  explicit Attention(const AttentionTask& of)
      : task(of),
        keys(of.scratch),
        values(keys + std::size_t{kScoredBlocks} * kBlock * of.head_dim),
        scores(values + std::size_t{kBlock} * of.head_dim),
        results(scores + std::size_t{kAttentionQueries} * kSegmentTokens),
        result_stride(of.head_dim + kLanes),
        queries(of.rows * of.heads) {}

  std::uint32_t position(std::uint32_t query) const { return task.position + query / task.heads; }
  const float* q(std::uint32_t query) const {
    return task.q + query / task.heads * task.q_stride + query % task.heads * task.head_dim;
  }

  std::size_t keys_stride() const { return std::size_t{kBlock} * task.head_dim; }

  template <int kCount, int kBlocks>
  void score_queries(std::uint32_t first, std::uint32_t block, std::uint32_t in_segment) {
    const float* from[kCount];
    float* to[kCount];
    for (std::uint32_t i = 0; i < kCount; ++i) {
      from[i] = q(first + i);
      to[i] = scores + (first + i) * kSegmentTokens + in_segment + block * kBlock;
    }
    score<S, kCount, kBlocks>(keys + block * keys_stride(), keys_stride(), from, task.head_dim, task.scale,
                              to);
  }

  // `count` queries from `first` on, with `blocks` blocks of which the first is at `in_segment`. Wide enough
  // to hide the latency of a sum.
  template <int kCount>
  void score_run(std::uint32_t first, std::uint32_t blocks, std::uint32_t in_segment) {
    std::uint32_t block = 0;
    if constexpr (kCount <= 4) {
      for (; block + 4 <= blocks; block += 4) score_queries<kCount, 4>(first, block, in_segment);
    } else {
      for (; block + 2 <= blocks; block += 2) score_queries<kCount, 2>(first, block, in_segment);
    }
    for (; block < blocks; ++block) score_queries<kCount, 1>(first, block, in_segment);
  }

  // Scores of all queries that see the block at `start`, and up to kScoredBlocks blocks from there. A query
  // that does not see the later ones gets scores that are not looked at.
  void score_blocks(std::uint32_t start, std::uint32_t blocks, std::uint32_t segment_start) {
    const std::uint32_t in_segment = start - segment_start;
    std::uint32_t first = start <= task.position ? 0 : (start - task.position) * task.heads;
    for (; first + 8 <= queries; first += 8) score_run<8>(first, blocks, in_segment);
    for (; first + 4 <= queries; first += 4) score_run<4>(first, blocks, in_segment);
    if (first + 3 <= queries) {
      score_run<3>(first, blocks, in_segment);
    } else if (first + 2 <= queries) {
      score_run<2>(first, blocks, in_segment);
    } else if (first < queries) {
      score_run<1>(first, blocks, in_segment);
    }
  }

  // Turns a query's scores into weights; writes the maximum and the sum of weights.
  void soften(std::uint32_t query, std::uint32_t segment_start, std::uint32_t segment_stop) {
    float* from = scores + query * kSegmentTokens;
    const auto lowest = S::set(-__builtin_inff());
    auto highest = lowest;
    for (std::uint32_t start = segment_start; start < segment_stop; start += kBlock) {
      const std::uint32_t count = visible(position(query), start);
      if (count == 0) break;
      highest = S::max(highest, S::keep_first(S::load(from + (start - segment_start)), count, lowest));
    }
    const float largest = maximum<S>(highest);
    auto weights = S::zero();
    for (std::uint32_t start = segment_start; start < segment_stop; start += kBlock) {
      const std::uint32_t count = visible(position(query), start);
      if (count == 0) break;
      float* at = from + (start - segment_start);
      const auto weight = exponential<S>(S::sub(S::load(at), S::set(largest)));
      const auto masked = S::keep_first(weight, count, S::zero());
      S::store(at, masked);
      weights = S::add(weights, masked);
    }
    float* result = results + query * result_stride;
    result[task.head_dim] = largest;
    result[task.head_dim + 1] = sum<S>(weights);
  }

  template <int kCount>
  void add_to_queries(std::uint32_t query, std::uint32_t in_segment, std::uint32_t count) {
    const float* weights = scores + query * kSegmentTokens + in_segment;
    float* sums = results + query * result_stride;
    std::uint32_t d = 0;
    for (; d + 64 <= task.head_dim; d += 64) {
      add_values<S, kCount, 4>(values + d, task.head_dim, weights, count, sums + d, result_stride);
    }
    for (; d < task.head_dim; d += 16) {
      add_values<S, kCount, 1>(values + d, task.head_dim, weights, count, sums + d, result_stride);
    }
  }

  // Queries that see the same number of the block's tokens are taken together.
  void add_block(std::uint32_t start, std::uint32_t segment_start) {
    const std::uint32_t in_segment = start - segment_start;
    std::uint32_t query = start <= task.position ? 0 : (start - task.position) * task.heads;
    while (query < queries) {
      const std::uint32_t count = visible(position(query), start);
      std::uint32_t run = 1;
      while (run < 6 && query + run < queries && visible(position(query + run), start) == count) ++run;
      if (run == 6) {
        add_to_queries<6>(query, in_segment, count);
        query += 6;
      } else if (run >= 3) {
        add_to_queries<3>(query, in_segment, count);
        query += 3;
      } else {
        add_to_queries<1>(query, in_segment, count);
        query += 1;
      }
    }
  }

  void load_values(const std::byte* from, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count * task.head_dim; i += kLanes) {
      S::store(values + i, S::load_half(from + std::size_t{2} * i));
    }
  }

  // A head's part of a block is a short run far from the next one's: the CPU does not see it coming.
  void prefetch(std::uint32_t block, std::size_t offset) const {
    if (block > (task.position + task.rows - 1) / kBlock) return;
    const std::byte* from = task.pool + task.blocks[block] * task.block_stride + offset;
    for (std::size_t line = 0; line < std::size_t{2} * kBlock * task.head_dim; line += 64)
      S::prefetch(from + line);
  }

  void run_segment(std::uint32_t segment) {
    const std::uint32_t last = task.position + task.rows - 1;
    const std::uint32_t segment_start = segment * kSegmentTokens;
    const std::uint32_t end = segment_start + kSegmentTokens;
    const std::uint32_t stop = end <= last ? end : last + 1;
    // The first query that reaches the segment.
    const std::uint32_t first =
        segment_start <= task.position ? 0 : (segment_start - task.position) * task.heads;
    for (std::uint32_t start = segment_start; start < stop; start += kScoredBlocks * kBlock) {
      std::uint32_t blocks = 0;
      for (; blocks < kScoredBlocks && start + blocks * kBlock < stop; ++blocks) {
        const std::uint32_t at = start + blocks * kBlock;
        const std::byte* block = task.pool + task.blocks[at / kBlock] * task.block_stride;
        prefetch(at / kBlock + kScoredBlocks, task.key_offset);
        prefetch(at / kBlock, task.value_offset);
        load_keys<S>(block + task.key_offset, task.head_dim, visible(last, at),
                     keys + blocks * keys_stride());
      }
      score_blocks(start, blocks, segment_start);
    }
    for (std::uint32_t query = first; query < queries; ++query) {
      soften(query, segment_start, stop);
      float* sums = results + query * result_stride;
      for (std::uint32_t d = 0; d < task.head_dim; ++d) sums[d] = 0;
    }
    for (std::uint32_t start = segment_start; start < stop; start += kBlock) {
      const std::byte* block = task.pool + task.blocks[start / kBlock] * task.block_stride;
      load_values(block + task.value_offset, visible(last, start));
      add_block(start, segment_start);
    }
    for (std::uint32_t query = first; query < queries; ++query) {
      const float* result = results + query * result_stride;
      float* partial = task.partial + query * task.partial_stride;
      if (segment == task.first_segment) {
        for (std::uint32_t i = 0; i < task.head_dim + 2; ++i) partial[i] = result[i];
      } else {
        merge<S>(partial, result, task.head_dim);
      }
    }
  }
};

template <class S>
void attend(const AttentionTask& task) {
  Attention<S> attention(task);
  for (std::uint32_t segment = task.first_segment; segment < task.last_segment; ++segment) {
    attention.run_segment(segment);
  }
}

}  // namespace
}  // namespace switchyard::model::cpu
