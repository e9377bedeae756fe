// Weights times activations, a tile of rows by panels at a time. For kernel files only.
//
// The order of operations of one element of y, with W quantised in groups of G values:
//   acc = 0
//   for each group g:  block = 0;  for k in g, ascending:  block = fma(q[k], x[k], block)
//                      acc = fma(scale[g], block, acc);  if there are minimums:  acc = fma(minimum[g], sum x,
//                      acc)
// and for plain formats acc = fma(w[k], x[k], acc), k ascending. A tile's size changes what is computed at
// the same time, never this order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/cpu/kernels.h"
#include "model/cpu/math.h"

namespace switchyard::model::cpu {
namespace {

// Bytes of panels that stay in the second-level cache while all rows pass over them.
inline constexpr std::size_t kPanelBlockBytes = std::size_t{768} << 10;

template <class S, int kRows, int kPanels>
struct Tile {
  using V = typename S::V;

  const ProductTask& task;
  const float* x;           // of the tile's first row
  const float* sums;        // of the tile's first row
  const std::byte* panels;  // the tile's first panel
  V acc[kRows][kPanels];

  // Panels in groups of 8 values of k: nibbles.
  struct NibbleWeights {
    static constexpr std::size_t kStepBytes = 64;
    typename S::NibbleTable table;
    typename S::Words words[kPanels];
    void start(const std::byte* const* at) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) words[p] = S::load_words(at[p]);
    }
    V value(int p, int) {
      const V v = S::nibbles(words[p], table);
      words[p] = S::next(words[p]);
      return v;
    }
  };
  struct ByteWeights {
    static constexpr std::size_t kStepBytes = 128;
    const std::byte* from[kPanels];
    void start(const std::byte* const* at) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) from[p] = at[p];
    }
    V value(int p, int k) { return S::load_int8(from[p] + 16 * k); }
  };
  template <WeightFormat kFormat>
  struct PlainWeights {
    static constexpr std::size_t kElement = kFormat == WeightFormat::f32 ? 4 : 2;
    static constexpr std::size_t kStepBytes = 8 * kLanes * kElement;
    const std::byte* from[kPanels];
    void start(const std::byte* const* at) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) from[p] = at[p];
    }
    V value(int p, int k) {
      const std::byte* at = from[p] + kLanes * kElement * static_cast<unsigned>(k);
      if constexpr (kFormat == WeightFormat::f32) return S::load(reinterpret_cast<const float*>(at));
      if constexpr (kFormat == WeightFormat::f16) return S::load_half(at);
      if constexpr (kFormat == WeightFormat::bf16) return S::load_bfloat16(at);
    }
  };

  // Eight values of k for all rows and panels, into `to`.
  template <class Weights>
  [[gnu::always_inline]] static inline void step(Weights& weights, const std::byte* const* at,
                                                 const float* from, std::size_t stride,
                                                 V (&to)[kRows][kPanels]) {
    // Few base pointers and scaled strides instead of a pointer for each row: registers.
    const float* from3 = from + 3 * stride;
    const float* from6 = from + 6 * stride;
    const float* from9 = from + 9 * stride;
    weights.start(at);
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
      V w[kPanels];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) w[p] = weights.value(p, k);
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) {
        const float* base = r < 3 ? from : r < 6 ? from3 : r < 9 ? from6 : from9;
        const V value = S::set(base[static_cast<unsigned>(r % 3) * stride + static_cast<unsigned>(k)]);
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) to[r][p] = S::fma(w[p], value, to[r][p]);
      }
    }
  }

  void clear(V (&v)[kRows][kPanels]) {
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) v[r][p] = S::zero();
    }
  }

  template <class Weights>
  void quantised(Weights weights) {
    const std::size_t scales = kLanes * (task.wide_scales ? 4u : 2u);
    const std::size_t head = task.minimum ? 2 * scales : scales;
    const std::uint32_t steps = task.group / 8;
    const std::size_t group_bytes = head + steps * Weights::kStepBytes;
    const std::uint32_t groups = task.columns / task.group;
    // Few rows wait for memory: ask for the panels after these at the same place.
    const std::size_t ahead = kPanels * task.panel_bytes;
    const std::byte* at[kPanels];
    for (int p = 0; p < kPanels; ++p) at[p] = panels + static_cast<unsigned>(p) * task.panel_bytes;
    const float* from = x;
    clear(acc);
    for (std::uint32_t g = 0; g < groups; ++g) {
      if constexpr (kRows <= 4) {
        for (int p = 0; p < kPanels; ++p) {
          for (std::size_t line = 0; line < group_bytes; line += 64) S::prefetch(at[p] + ahead + line);
        }
      }
      V block[kRows][kPanels];
      clear(block);
      const std::byte* quants[kPanels];
      for (int p = 0; p < kPanels; ++p) quants[p] = at[p] + head;
      for (std::uint32_t i = 0; i < steps; ++i) {
        step(weights, quants, from, task.x_stride, block);
        from += 8;
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) quants[p] += Weights::kStepBytes;
      }
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        const V scale = load_scale(at[p]);
#pragma GCC unroll 12
        for (int r = 0; r < kRows; ++r) acc[r][p] = S::fma(scale, block[r][p], acc[r][p]);
        if (task.minimum) {
          const V minimum = load_scale(at[p] + scales);
#pragma GCC unroll 12
          for (int r = 0; r < kRows; ++r) {
            const V sum_x = S::set(sums[static_cast<unsigned>(r) * task.sums_stride + g]);
            acc[r][p] = S::fma(minimum, sum_x, acc[r][p]);
          }
        }
        at[p] += group_bytes;
      }
    }
  }

  V load_scale(const std::byte* from) const {
    return task.wide_scales ? S::load(reinterpret_cast<const float*>(from)) : S::load_half(from);
  }

  template <class Weights>
  void plain(Weights weights) {
    const std::byte* at[kPanels];
    for (int p = 0; p < kPanels; ++p) at[p] = panels + static_cast<unsigned>(p) * task.panel_bytes;
    V sum[kRows][kPanels];
    clear(sum);
    for (std::uint32_t k = 0; k < task.columns; k += 8) {
      if constexpr (kRows <= 4) {
        for (int p = 0; p < kPanels; ++p) {
          const std::byte* ahead = at[p] + kPanels * task.panel_bytes;
          for (std::size_t line = 0; line < Weights::kStepBytes; line += 64) S::prefetch(ahead + line);
        }
      }
      step(weights, at, x + k, task.x_stride, sum);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) at[p] += Weights::kStepBytes;
    }
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) acc[r][p] = sum[r][p];
    }
  }

  void multiply() {
    switch (task.format) {
      case WeightFormat::q4:
        return quantised(NibbleWeights{S::nibble_table(task.minimum ? 0.0f : -8.0f), {}});
      case WeightFormat::q8:
        return quantised(ByteWeights{});
      case WeightFormat::f16:
        return plain(PlainWeights<WeightFormat::f16>{});
      case WeightFormat::bf16:
        return plain(PlainWeights<WeightFormat::bf16>{});
      case WeightFormat::f32:
        return plain(PlainWeights<WeightFormat::f32>{});
    }
  }

  // y[row][column .. column + 15], as far as there are such columns.
  void put(std::uint32_t row, std::uint32_t column, V value) const {
    if (column >= task.y_columns) return;
    float* to = task.y + row * task.y_stride + column;
    const std::uint32_t left = task.y_columns - column;
    if (left >= kLanes) {
      if (task.bias != nullptr) value = S::add(value, S::load(task.bias + column));
      if (task.finish == Finish::add) value = S::add(S::load(to), value);
      S::store(to, value);
      return;
    }
    alignas(64) float lanes[kLanes];
    S::store(lanes, value);
    for (std::uint32_t i = 0; i < left; ++i) {
      if (task.bias != nullptr) lanes[i] += task.bias[column + i];
      to[i] = task.finish == Finish::add ? to[i] + lanes[i] : lanes[i];
    }
  }

  void finish(std::uint32_t row, std::uint32_t panel) const {
    for (int r = 0; r < kRows; ++r) {
      for (int p = 0; p < kPanels; ++p) {
        const std::uint32_t at = panel + static_cast<std::uint32_t>(p);
        if (task.finish != Finish::swiglu) {
          put(row + static_cast<std::uint32_t>(r), at * kLanes, acc[r][p]);
        } else if (p % 2 == 1) {
          put(row + static_cast<std::uint32_t>(r), at / 2 * kLanes,
              S::mul(silu<S>(acc[r][p - 1]), acc[r][p]));
        }
      }
    }
  }
};

template <class S, int kRows, int kPanels>
[[gnu::noinline]] void multiply_tile(const ProductTask& task, std::uint32_t row, std::uint32_t panel) {
  Tile<S, kRows, kPanels> tile{task,
                               task.x + row * task.x_stride,
                               task.sums == nullptr ? nullptr : task.sums + row * task.sums_stride,
                               task.panels + panel * task.panel_bytes,
                               {}};
  tile.multiply();
  tile.finish(row, panel);
}

template <class S, int kRows, int kPanels>
std::uint32_t multiply_panels(const ProductTask& task, std::uint32_t row, std::uint32_t first,
                              std::uint32_t last) {
  for (; first + kPanels <= last; first += kPanels) multiply_tile<S, kRows, kPanels>(task, row, first);
  return first;
}

template <class S>
void product(const ProductTask& task) {
  std::uint32_t step =
      static_cast<std::uint32_t>(kPanelBlockBytes / task.panel_bytes) & ~(kPanelStep * 2 - 1);
  if (step < kPanelStep * 2) step = kPanelStep * 2;
  for (std::uint32_t first = task.first_panel; first < task.last_panel; first += step) {
    const std::uint32_t last = task.last_panel - first < step ? task.last_panel : first + step;
    std::uint32_t row = 0;
    while (row < task.rows) {
      const std::uint32_t left = task.rows - row;
      if (S::kTileRows >= 12 && left >= 12) {
        multiply_panels<S, S::kTileRows >= 12 ? 12 : 1, 2>(task, row, first, last);
        row += 12;
      } else if (S::kTileRows >= 8 && left >= 8) {
        multiply_panels<S, S::kTileRows >= 8 ? 8 : 1, 2>(task, row, first, last);
        row += 8;
      } else if (S::kTileRows >= 4 && left >= 4) {
        multiply_panels<S, S::kTileRows >= 4 ? 4 : 1, 2>(task, row, first, last);
        row += 4;
      } else if (S::kTileRows >= 3 && left >= 3) {
        multiply_panels<S, S::kTileRows >= 3 ? 3 : 1, 2>(task, row, first, last);
        row += 3;
      } else if (left >= 2) {
        multiply_panels<S, 2, 2>(task, row, first, last);
        row += 2;
      } else {
        // Four panels: enough independent sums to hide the latency of one.
        const std::uint32_t rest = multiply_panels<S, 1, 4>(task, row, first, last);
        multiply_panels<S, 1, 2>(task, row, rest, last);
        row += 1;
      }
    }
  }
}

}  // namespace
}  // namespace switchyard::model::cpu
