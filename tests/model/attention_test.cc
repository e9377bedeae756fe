#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "model/cpu/kernels.h"
#include "model/half.h"
#include "model/kv_layout.h"
#include "model/random_tensor.h"

namespace switchyard::model {
namespace {

using cpu::AttentionTask;
using cpu::Kernels;

// One request's keys and values in blocks of a pool, in an order of their own.
struct Paged {
  Paged(std::uint32_t head_dim, std::uint32_t group, std::uint32_t tokens, std::uint64_t order)
      : layout{.layers = 2, .kv_heads = 2, .head_dim = head_dim},
        heads(group),
        blocks(KvLayout::blocks_for(tokens)),
        pool((blocks.size() + 3) * layout.block_bytes(), std::byte{0xff}),  // NaNs where nothing is written
        q(random_floats(std::size_t{tokens} * group * head_dim, 1, 3)) {
    std::iota(blocks.begin(), blocks.end(), 0u);
    TinyRandom random(order, "blocks");
    if (order != 0) {
      for (std::size_t i = blocks.size(); i > 1; --i) std::swap(blocks[i - 1], blocks[random.next() % i]);
    }
    keys = random_floats(std::size_t{tokens} * head_dim, 2);
    values = random_floats(std::size_t{tokens} * head_dim, 3);
    for (std::uint32_t t = 0; t < tokens; ++t) {
      std::byte* block = pool.data() + blocks[t / kBlockTokens] * layout.block_bytes();
      for (std::uint32_t d = 0; d < head_dim; ++d) {
        const std::size_t place = (std::size_t{t % kBlockTokens} * head_dim + d) * 2;
        const std::uint16_t key = float_to_half(keys[std::size_t{t} * head_dim + d]);
        const std::uint16_t value = float_to_half(values[std::size_t{t} * head_dim + d]);
        std::memcpy(block + layout.key_offset(1, 1) + place, &key, 2);
        std::memcpy(block + layout.value_offset(1, 1) + place, &value, 2);
      }
    }
  }

  // Rows [first, first + rows) as one task; segment by segment if `split`.
  std::vector<float> run(const Kernels& kernels, std::uint32_t first, std::uint32_t rows,
                         bool split = false) const {
    const std::uint32_t dim = layout.head_dim;
    const std::size_t stride = dim + cpu::kLanes;
    std::vector<float> scratch(cpu::attention_scratch_floats(dim));
    std::vector<float> partial(std::size_t{rows} * heads * stride);
    std::vector<float> later(partial.size());
    AttentionTask task;
    task.q = q.data() + std::size_t{first} * heads * dim;
    task.q_stride = std::size_t{heads} * dim;
    task.rows = rows;
    task.heads = heads;
    task.head_dim = dim;
    task.position = first;
    task.scale = 1.0f / std::sqrt(static_cast<float>(dim));
    task.pool = pool.data();
    task.block_stride = layout.block_bytes();
    task.key_offset = layout.key_offset(1, 1);
    task.value_offset = layout.value_offset(1, 1);
    task.blocks = blocks.data();
    task.partial_stride = stride;
    task.scratch = scratch.data();
    const std::uint32_t segments = (first + rows + cpu::kSegmentTokens - 1) / cpu::kSegmentTokens;
    task.last_segment = split ? 1 : segments;
    task.partial = partial.data();
    kernels.attend(task);
    for (std::uint32_t segment = 1; split && segment < segments; ++segment) {
      task.first_segment = segment;
      task.last_segment = segment + 1;
      task.partial = later.data();
      kernels.attend(task);
      for (std::size_t query = 0; query < std::size_t{rows} * heads; ++query) {
        if (first + query / heads < segment * cpu::kSegmentTokens) continue;
        kernels.merge(partial.data() + query * stride, later.data() + query * stride, dim);
      }
    }
    std::vector<float> out(std::size_t{rows} * heads * dim);
    for (std::size_t query = 0; query < std::size_t{rows} * heads; ++query) {
      kernels.finish_attention(partial.data() + query * stride, dim, out.data() + query * dim);
    }
    return out;
  }

  std::vector<double> exact(std::uint32_t row, std::uint32_t head) const {
    const std::uint32_t dim = layout.head_dim;
    const float* query = q.data() + (std::size_t{row} * heads + head) * dim;
    std::vector<double> weights(row + 1);
    std::vector<double> sums(dim);
    double total = 0;
    for (std::size_t t = 0; t <= row; ++t) {
      double score = 0;
      for (std::size_t d = 0; d < dim; ++d) {
        score += static_cast<double>(query[d]) * half_to_float(float_to_half(keys[t * dim + d]));
      }
      weights[t] = std::exp(score / std::sqrt(static_cast<double>(dim)));
      total += weights[t];
    }
    for (std::size_t t = 0; t <= row; ++t) {
      for (std::size_t d = 0; d < dim; ++d) {
        sums[d] += weights[t] / total * half_to_float(float_to_half(values[t * dim + d]));
      }
    }
    return sums;
  }

  KvLayout layout;
  std::uint32_t heads;
  std::vector<std::uint32_t> blocks;
  std::vector<std::byte> pool;
  std::vector<float> q;
  std::vector<float> keys;
  std::vector<float> values;
};

struct Shape {
  std::uint32_t head_dim;
  std::uint32_t group;
};
class AttentionShapes : public testing::TestWithParam<Shape> {};

TEST_P(AttentionShapes, IsNearTheExactResult) {
  const Paged paged(GetParam().head_dim, GetParam().group, 600, 4);
  for (const std::uint32_t row : {0u, 1u, 15u, 16u, 255u, 256u, 300u, 599u}) {
    const std::vector<float> out = paged.run(cpu::best_kernels(), row, 1);
    for (std::uint32_t head = 0; head < paged.heads; ++head) {
      const std::vector<double> exact = paged.exact(row, head);
      for (std::size_t d = 0; d < exact.size(); ++d) {
        EXPECT_NEAR(out[head * exact.size() + d], exact[d], 1e-5) << "row " << row;
      }
    }
  }
}

TEST_P(AttentionShapes, TilesSegmentsBlocksAndInstructionSetsDoNotChangeABit) {
  const std::uint32_t tokens = 530;
  const Paged paged(GetParam().head_dim, GetParam().group, tokens, 0);
  const Paged shuffled(GetParam().head_dim, GetParam().group, tokens, 77);
  const std::size_t row_floats = std::size_t{paged.heads} * paged.layout.head_dim;
  const std::uint32_t most = cpu::kAttentionQueries / paged.heads;
  const auto compare = [&](const Kernels& kernels, const Paged& from, std::uint32_t first, std::uint32_t rows,
                           bool split) {
    const std::vector<float> tile = from.run(kernels, first, rows, split);
    for (std::uint32_t i = 0; i < rows; ++i) {
      const std::vector<float> alone = paged.run(cpu::best_kernels(), first + i, 1);
      ASSERT_EQ(0, std::memcmp(alone.data(), tile.data() + i * row_floats, row_floats * sizeof(float)))
          << "row " << first + i << " of a tile of " << rows << " from " << first;
    }
  };
  for (const Kernels* kernels : all_kernels()) {
    compare(*kernels, paged, 0, std::min(most, 16u), false);
    compare(*kernels, shuffled, 250, std::min(most, 16u), true);
    compare(*kernels, shuffled, 509, std::min(most, 7u), false);
    compare(*kernels, shuffled, tokens - 1, 1, true);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionShapes,
                         testing::Values(Shape{64, 3}, Shape{16, 2}, Shape{128, 8}, Shape{80, 1},
                                         Shape{64, 7}),
                         [](const auto& shape) {
                           return "dim" + std::to_string(shape.param.head_dim) + "group" +
                                  std::to_string(shape.param.group);
                         });

}  // namespace
}  // namespace switchyard::model
