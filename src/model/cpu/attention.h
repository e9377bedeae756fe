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
    for (std::uint32_t t = 0; t < kBlock; ++t) {
      rows[t] = t < count ? S::load_half(from + (std::size_t{t} * head_dim + d) * 2) : S::zero();
    }
    S::transpose(rows, columns);
    for (std::uint32_t i = 0; i < kLanes; ++i) S::store(keys + (d + i) * kBlock, columns[i]);
  }
}

// scores[i][token] of `kCount` queries.
template <class S, int kCount>
[[gnu::noinline]] void score(const float* keys, const float* const* q, std::uint32_t head_dim, float scale,
                             float* const* scores) {
  typename S::V sums[kCount];
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) sums[i] = S::zero();
  for (std::uint32_t d = 0; d < head_dim; ++d) {
    const auto key = S::load(keys + d * kBlock);
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) sums[i] = S::fma(key, S::set(q[i][d]), sums[i]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) S::store(scores[i], S::mul(sums[i], S::set(scale)));
}

// sums[d .. d + 16 * kVectors) += weights[t] * values[t] for t < count.
template <class S, int kVectors>
void add_values(const float* values, std::uint32_t head_dim, const float* weights, std::uint32_t count,
                float* sums) {
  typename S::V acc[kVectors];
#pragma GCC unroll 4
  for (int i = 0; i < kVectors; ++i) acc[i] = S::load(sums + 16 * i);
  for (std::uint32_t t = 0; t < count; ++t) {
    const auto weight = S::set(weights[t]);
    const float* value = values + t * head_dim;
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) acc[i] = S::fma(weight, S::load(value + 16 * i), acc[i]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kVectors; ++i) S::store(sums + 16 * i, acc[i]);
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
  float* keys;     // [head_dim][16]
  float* values;   // [16][head_dim]
  float* scores;   // [query][256]
  float* results;  // [query][head_dim + 2], rounded up to lanes
  std::size_t result_stride;
  std::uint32_t queries;

  explicit Attention(const AttentionTask& of)
      : task(of),
        keys(of.scratch),
        values(keys + std::size_t{kBlock} * of.head_dim),
        scores(values + std::size_t{kBlock} * of.head_dim),
        results(scores + std::size_t{kAttentionQueries} * kSegmentTokens),
        result_stride(of.head_dim + kLanes),
        queries(of.rows * of.heads) {}

  std::uint32_t position(std::uint32_t query) const { return task.position + query / task.heads; }
  const float* q(std::uint32_t query) const {
    return task.q + query / task.heads * task.q_stride + query % task.heads * task.head_dim;
  }

  template <int kCount>
  void score_queries(std::uint32_t first, std::uint32_t start, std::uint32_t segment_start) {
    const float* from[kCount];
    float* to[kCount];
    for (std::uint32_t i = 0; i < kCount; ++i) {
      from[i] = q(first + i);
      to[i] = scores + (first + i) * kSegmentTokens + (start - segment_start);
    }
    score<S, kCount>(keys, from, task.head_dim, task.scale, to);
  }

  // Scores of all queries that see the block at `start`.
  void score_block(std::uint32_t start, std::uint32_t segment_start) {
    std::uint32_t first = start <= task.position ? 0 : (start - task.position) * task.heads;
    for (; first + 8 <= queries; first += 8) score_queries<8>(first, start, segment_start);
    for (; first + 3 <= queries; first += 3) score_queries<3>(first, start, segment_start);
    for (; first < queries; ++first) score_queries<1>(first, start, segment_start);
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

  void add_block(std::uint32_t start, std::uint32_t segment_start) {
    const std::uint32_t first = start <= task.position ? 0 : (start - task.position) * task.heads;
    for (std::uint32_t query = first; query < queries; ++query) {
      const float* weights = scores + query * kSegmentTokens + (start - segment_start);
      const std::uint32_t count = visible(position(query), start);
      float* sums = results + query * result_stride;
      std::uint32_t d = 0;
      for (; d + 64 <= task.head_dim; d += 64) {
        add_values<S, 4>(values + d, task.head_dim, weights, count, sums + d);
      }
      for (; d < task.head_dim; d += 16) {
        add_values<S, 1>(values + d, task.head_dim, weights, count, sums + d);
      }
    }
  }

  void load_values(const std::byte* from, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count * task.head_dim; i += kLanes) {
      S::store(values + i, S::load_half(from + std::size_t{2} * i));
    }
  }

  void run_segment(std::uint32_t segment) {
    const std::uint32_t last = task.position + task.rows - 1;
    const std::uint32_t segment_start = segment * kSegmentTokens;
    const std::uint32_t end = segment_start + kSegmentTokens;
    const std::uint32_t stop = end <= last ? end : last + 1;
    // The first query that reaches the segment.
    const std::uint32_t first =
        segment_start <= task.position ? 0 : (segment_start - task.position) * task.heads;
    for (std::uint32_t start = segment_start; start < stop; start += kBlock) {
      const std::byte* block = task.pool + task.blocks[start / kBlock] * task.block_bytes;
      load_keys<S>(block + task.key_offset, task.head_dim, visible(last, start), keys);
      score_block(start, segment_start);
    }
    for (std::uint32_t query = first; query < queries; ++query) {
      soften(query, segment_start, stop);
      float* sums = results + query * result_stride;
      for (std::uint32_t d = 0; d < task.head_dim; ++d) sums[d] = 0;
    }
    for (std::uint32_t start = segment_start; start < stop; start += kBlock) {
      const std::byte* block = task.pool + task.blocks[start / kBlock] * task.block_bytes;
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
