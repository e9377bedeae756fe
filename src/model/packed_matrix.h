// A weight matrix [rows = outputs][columns = inputs] as the CPU kernels read it.
//
// Rows are kept in panels of 16, one row to a vector lane, padded with rows of zeros to an even number of
// panels. A panel is one run of bytes, columns ascending (padded with zeros to a multiple of 32):
//
//   plain (f32, f16, bf16):  for each column: 16 elements
//   q8: for each group of 16 or 32 columns:  scales [16], minimums [16] if there are any,
//                                            for each column: 16 signed bytes
//   q4: for each group of 32 columns:        scales [16], minimums [16] if there are any,
//                                            for each 8 columns: 16 words of 8 nibbles, the first column
//                                            lowest
//
// Scales and minimums are halves where the checkpoint's are, else floats ("wide"). A value is scale * q +
// minimum; nibbles count from 0 with minimums and from -8 without. Nothing is rounded on the way from a
// checkpoint.
//
// PackedMatrix is a view; the bytes belong to a ModelImage. Immutable; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "model/checkpoint.h"
#include "model/cpu/kernels.h"
#include "switchyard/result.h"

namespace switchyard::model {

using cpu::WeightFormat;

// Changes when the meaning of a packed byte does.
inline constexpr std::uint32_t kPackedLayoutVersion = 1;

struct PackedMatrix {
  WeightFormat format = WeightFormat::f32;
  std::uint32_t rows = 0;
  std::uint32_t columns = 0;
  std::uint32_t group = 0;  // columns that share a scale; 0 for plain formats
  bool minimum = false;
  bool wide_scales = false;
  // Panels of two matrices of the same shape in turn, gate first: rows counts both.
  bool interleaved = false;
  std::span<const std::byte> bytes;

  std::uint32_t padded_columns() const { return (columns + 31) / 32 * 32; }
  std::uint32_t panels() const;
  std::size_t group_bytes() const;
  std::size_t panel_bytes() const;
  std::size_t packed_bytes() const { return panels() * panel_bytes(); }
};

// How matrices are packed as one: their rows one after the other, or their panels in turn. nullopt where
// their types, shapes or numbers of rows do not allow it; a single matrix is always allowed.
std::optional<PackedMatrix> plan_packing(std::span<const Tensor* const> tensors, bool interleave = false);

// One panel of `plan`, into panel_bytes() bytes. `tensors`: as given to plan_packing.
void pack_panel(const PackedMatrix& plan, std::span<const Tensor* const> tensors, std::uint32_t panel,
                std::span<std::byte> out);

// All panels.
std::vector<std::byte> pack(const PackedMatrix& plan, std::span<const Tensor* const> tensors);

// The floats of a row that is not interleaved; out.size() == columns. What embeddings are looked up with.
void unpack_row(const PackedMatrix& matrix, std::uint32_t row, std::span<float> out);

}  // namespace switchyard::model
