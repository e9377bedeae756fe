// The arithmetic of the runtime, once for each instruction set.
//
// Every function's result is defined by the order of its IEEE operations, which lanes_*.h carry out in the
// same way: scalar, AVX2 and AVX-512 kernels agree in every bit, whatever number of rows they work on at
// once. Pure functions of their arguments; any thread; they allocate nothing. Plain data only: this header is
// included by code that is built for other instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

namespace switchyard::model::cpu {

enum class Isa : std::uint32_t { scalar = 0, avx2 = 1, avx512 = 2 };

// Lanes of a vector, output rows of a panel.
inline constexpr std::uint32_t kLanes = 16;
// Panels that are worked on together; matrices are padded to a multiple.
inline constexpr std::uint32_t kPanelStep = 2;
// Tokens of one softmax pass; longer contexts merge passes in order.
inline constexpr std::uint32_t kSegmentTokens = 256;
// KV blocks whose keys are held at once.
inline constexpr std::uint32_t kScoredBlocks = 4;
// (row, head) pairs of one attention task at most.
inline constexpr std::uint32_t kAttentionQueries = 48;

enum class WeightFormat : std::uint32_t { f32 = 0, f16 = 1, bf16 = 2, q8 = 3, q4 = 4 };

enum class Finish : std::uint32_t {
  store,   // y = Wx (+ bias)
  add,     // y = y + Wx
  swiglu,  // even panels g, odd panels u of W: y = silu(gx) * ux; half as many columns
};

// y[row][panel lanes] over panels [first_panel, last_panel), both even. See packed_matrix.h for the order of
// operations.
struct ProductTask {
  WeightFormat format = WeightFormat::f32;
  Finish finish = Finish::store;
  bool minimum = false;
  bool wide_scales = false;
  std::uint32_t group = 0;    // values per scale; 0 for plain formats
  std::uint32_t columns = 0;  // padded: a multiple of 32
  const std::byte* panels = nullptr;
  std::size_t panel_bytes = 0;
  std::uint32_t first_panel = 0;
  std::uint32_t last_panel = 0;

  std::uint32_t rows = 0;       // of x and y
  const float* x = nullptr;     // [rows][columns], zeros in the padding
  std::size_t x_stride = 0;     // floats
  const float* sums = nullptr;  // [rows][columns / group]: sums of x, where there are minimums
  std::size_t sums_stride = 0;

  float* y = nullptr;
  std::size_t y_stride = 0;
  std::uint32_t y_columns = 0;  // columns beyond are not written
  const float* bias = nullptr;  // [y_columns], or none; with `store`
};

// Attention of `heads` query heads that share a KV head, for `rows` consecutive positions of one request,
// over the tokens of segments [first_segment, last_segment).
struct AttentionTask {
  const float* q = nullptr;  // row r, head h at q + r * q_stride + h * head_dim; rotated
  std::size_t q_stride = 0;
  std::uint32_t rows = 0;
  std::uint32_t heads = 0;
  std::uint32_t head_dim = 0;  // a multiple of 16
  std::uint32_t position = 0;  // of the first row
  float scale = 1;

  const std::byte* pool = nullptr;
  std::size_t block_stride = 0;  // bytes from one block number to the next
  std::size_t key_offset = 0;    // within a block, of this layer and KV head
  std::size_t value_offset = 0;
  const std::uint32_t* blocks = nullptr;

  std::uint32_t first_segment = 0;
  std::uint32_t last_segment = 0;
  // Partial result of row r, head h at partial + (r * heads + h) * partial_stride: head_dim sums, the maximum
  // and the sum of weights. Segments that a row does not reach leave it untouched.
  float* partial = nullptr;
  std::size_t partial_stride = 0;
  // attention_scratch_floats(head_dim) floats, 64-byte aligned.
  float* scratch = nullptr;
};

constexpr std::size_t attention_scratch_floats(std::uint32_t head_dim) {
  return std::size_t{kScoredBlocks + 1} * kLanes * head_dim +
         std::size_t{kAttentionQueries} * (kSegmentTokens + head_dim + 2 + kLanes);
}

struct Kernels {
  Isa isa = Isa::scalar;
  void (*product)(const ProductTask& task) = nullptr;
  void (*attend)(const AttentionTask& task) = nullptr;
  // Adds the partial result `later` of a later segment to `partial`.
  void (*merge)(float* partial, const float* later, std::uint32_t head_dim) = nullptr;
  // out = sums / weight of a partial result.
  void (*finish_attention)(const float* partial, std::uint32_t head_dim, float* out) = nullptr;
  // out = x / sqrt(mean(x^2) + epsilon) * weight
  void (*rms_norm)(const float* x, const float* weight, float* out, std::uint32_t size,
                   float epsilon) = nullptr;
  // sums[i] = sum of x[32 i .. 32 i + 31]
  void (*group_sums)(const float* x, float* sums, std::uint32_t groups) = nullptr;
  // Rotates the pairs (x[i], x[i + half]) by the angles whose cosines and sines are given.
  void (*rotate)(float* x, const float* cosines, const float* sines, std::uint32_t half) = nullptr;
  void (*store_half)(const float* from, void* to, std::uint32_t size) = nullptr;  // size: a multiple of 16
  // x = exp((x - maximum) * scale), and 0 where the exponent is below -87 or not a number; in place, any
  // size.
  void (*exponentials)(float* x, std::uint32_t size, float maximum, float scale) = nullptr;
  // What benchmarks measure the machine with: 24 independent chains of `rounds` fused multiply-adds of 16
  // lanes, and the reading of `size` floats, a multiple of 128. The results are of no use but to be computed.
  float (*fma_chains)(std::uint32_t rounds) = nullptr;
  float (*read_all)(const float* from, std::size_t size) = nullptr;
  // out = silu(gate) * up; size: a multiple of 16
  void (*swiglu)(const float* gate, const float* up, float* out, std::uint32_t size) = nullptr;
};

// The kernels of an instruction set; nullptr where this CPU, or this build, lacks it.
const Kernels* kernels(Isa isa);
// The best that this CPU has; SWITCHYARD_ISA=scalar|avx2|avx512 asks for less.
const Kernels& best_kernels();

}  // namespace switchyard::model::cpu
