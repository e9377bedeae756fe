#include "model/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "model/half.h"
#include "model/quant_blocks.h"

namespace switchyard::model {
namespace {

constexpr std::uint32_t kLanes = cpu::kLanes;

bool is_plain(WeightFormat format) { return format < WeightFormat::q8; }
std::size_t element_bytes(WeightFormat format) { return format == WeightFormat::f32 ? 4 : 2; }

std::uint32_t panels_of(std::uint64_t rows) {
  return static_cast<std::uint32_t>((rows + kLanes - 1) / kLanes);
}

// Scales of these are halves in the file.
bool has_half_scales(DType type) {
  return type == DType::q8_0 || type == DType::q4_0 || type == DType::q4_1 || type == DType::q5_0 ||
         type == DType::q5_1;
}

PackedMatrix form_of(DType type) {
  PackedMatrix form;
  const std::optional<QuantGroups> groups = quant_groups(type);
  if (!groups) {
    form.format = type == DType::f16    ? WeightFormat::f16
                  : type == DType::bf16 ? WeightFormat::bf16
                                        : WeightFormat::f32;
    return form;
  }
  const int lowest = groups->has_minimum ? 0 : -8;
  const bool nibbles =
      groups->group_values == 32 && groups->lowest >= lowest && groups->highest <= lowest + 15;
  form.format = nibbles ? WeightFormat::q4 : WeightFormat::q8;
  form.group = groups->group_values;
  form.minimum = groups->has_minimum;
  form.wide_scales = !has_half_scales(type);
  return form;
}

// A row of a checkpoint, unpacked.
struct RowValues {
  std::span<const std::byte> plain;
  std::vector<std::int8_t> q;
  std::vector<float> scales;
  std::vector<float> minimums;

  void read(const Tensor& tensor, std::uint64_t row) {
    const std::span<const std::byte> bytes = row_bytes(tensor, row);
    const std::optional<QuantGroups> groups = quant_groups(tensor.type);
    if (!groups) {
      plain = bytes;
      return;
    }
    const std::size_t blocks = bytes.size() / groups->block_bytes;
    q.resize(blocks * groups->block_values);
    scales.resize(blocks * groups->groups_per_block());
    minimums.resize(scales.size());
    unpack_groups(tensor.type, bytes, q, scales, minimums);
  }
};

// The checkpoint's row that is row `lane` of a panel; nullptr where there is none.
const Tensor* source(const PackedMatrix& plan, std::span<const Tensor* const> tensors, std::uint32_t panel,
                     std::uint32_t lane, std::uint64_t& row) {
  if (plan.interleaved) {
    row = std::uint64_t{panel / 2} * kLanes + lane;
    const Tensor* tensor = tensors[panel % 2];
    return row < tensor->rows() ? tensor : nullptr;
  }
  row = std::uint64_t{panel} * kLanes + lane;
  for (const Tensor* tensor : tensors) {
    if (row < tensor->rows()) return tensor;
    row -= tensor->rows();
  }
  return nullptr;
}

void put_scale(bool wide, float value, std::byte* at, std::uint32_t lane) {
  if (wide) {
    std::memcpy(at + 4 * lane, &value, 4);
  } else {
    const std::uint16_t half = float_to_half(value);
    std::memcpy(at + 2 * lane, &half, 2);
  }
}

float get_scale(bool wide, const std::byte* at, std::uint32_t lane) {
  if (wide) {
    float value = 0;
    std::memcpy(&value, at + 4 * lane, 4);
    return value;
  }
  std::uint16_t half = 0;
  std::memcpy(&half, at + 2 * lane, 2);
  return half_to_float(half);
}

std::size_t scale_bytes(const PackedMatrix& matrix) { return kLanes * (matrix.wide_scales ? 4 : 2); }

void put_row(const PackedMatrix& plan, const RowValues& values, std::uint32_t lane, std::byte* panel) {
  if (is_plain(plan.format)) {
    const std::size_t element = element_bytes(plan.format);
    for (std::uint32_t column = 0; column < plan.columns; ++column) {
      std::memcpy(panel + (std::size_t{column} * kLanes + lane) * element,
                  values.plain.data() + column * element, element);
    }
    return;
  }
  const std::size_t scales = scale_bytes(plan);
  for (std::uint32_t g = 0; g < plan.columns / plan.group; ++g) {
    std::byte* at = panel + g * plan.group_bytes();
    put_scale(plan.wide_scales, values.scales[g], at, lane);
    at += scales;
    if (plan.minimum) {
      put_scale(plan.wide_scales, values.minimums[g], at, lane);
      at += scales;
    }
    const std::int8_t* q = values.q.data() + std::size_t{g} * plan.group;
    if (plan.format == WeightFormat::q8) {
      for (std::uint32_t k = 0; k < plan.group; ++k) at[k * kLanes + lane] = static_cast<std::byte>(q[k]);
      continue;
    }
    const int lowest = plan.minimum ? 0 : -8;
    for (std::uint32_t k = 0; k < plan.group; k += 8) {
      std::uint32_t word = 0;
      for (std::uint32_t i = 0; i < 8; ++i) word |= static_cast<std::uint32_t>(q[k + i] - lowest) << (4 * i);
      std::memcpy(at + (k / 8 * kLanes + lane) * 4, &word, 4);
    }
  }
}

}  // namespace

std::uint32_t PackedMatrix::panels() const {
  if (interleaved) return 2 * panels_of(rows / 2);
  return (panels_of(rows) + cpu::kPanelStep - 1) / cpu::kPanelStep * cpu::kPanelStep;
}

std::size_t PackedMatrix::group_bytes() const {
  const std::size_t scales = scale_bytes(*this) * (minimum ? 2 : 1);
  return scales + (format == WeightFormat::q4 ? group * kLanes / 2 : group * kLanes);
}

std::size_t PackedMatrix::panel_bytes() const {
  if (is_plain(format)) return std::size_t{padded_columns()} * kLanes * element_bytes(format);
  return padded_columns() / group * group_bytes();
}

std::optional<PackedMatrix> plan_packing(std::span<const Tensor* const> tensors, bool interleave) {
  if (tensors.empty() || (interleave && tensors.size() != 2)) return std::nullopt;
  PackedMatrix plan = form_of(tensors[0]->type);
  plan.columns = static_cast<std::uint32_t>(tensors[0]->columns());
  plan.interleaved = interleave;
  for (const Tensor* tensor : tensors) {
    const PackedMatrix form = form_of(tensor->type);
    if (form.format != plan.format || form.group != plan.group || form.minimum != plan.minimum ||
        form.wide_scales != plan.wide_scales || tensor->columns() != plan.columns) {
      return std::nullopt;
    }
    if (interleave && tensor->rows() != tensors[0]->rows()) return std::nullopt;
    if (!interleave && tensor != tensors.back() && tensor->rows() % kLanes != 0) return std::nullopt;
    plan.rows += static_cast<std::uint32_t>(tensor->rows());
  }
  return plan;
}

void pack_panel(const PackedMatrix& plan, std::span<const Tensor* const> tensors, std::uint32_t panel,
                std::span<std::byte> out) {
  std::fill(out.begin(), out.end(), std::byte{0});
  RowValues values;
  for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
    std::uint64_t row = 0;
    if (const Tensor* tensor = source(plan, tensors, panel, lane, row); tensor != nullptr) {
      values.read(*tensor, row);
      put_row(plan, values, lane, out.data());
    }
  }
}

std::vector<std::byte> pack(const PackedMatrix& plan, std::span<const Tensor* const> tensors) {
  std::vector<std::byte> bytes(plan.packed_bytes());
  for (std::uint32_t panel = 0; panel < plan.panels(); ++panel) {
    pack_panel(plan, tensors, panel,
               std::span(bytes).subspan(panel * plan.panel_bytes(), plan.panel_bytes()));
  }
  return bytes;
}

void unpack_row(const PackedMatrix& matrix, std::uint32_t row, std::span<float> out) {
  const std::uint32_t lane = row % kLanes;
  const std::byte* panel = matrix.bytes.data() + row / kLanes * matrix.panel_bytes();
  if (is_plain(matrix.format)) {
    const std::size_t element = element_bytes(matrix.format);
    for (std::size_t column = 0; column < out.size(); ++column) {
      const std::byte* at = panel + (column * kLanes + lane) * element;
      std::uint16_t half = 0;
      if (matrix.format == WeightFormat::f32) {
        std::memcpy(&out[column], at, 4);
        continue;
      }
      std::memcpy(&half, at, 2);
      out[column] = matrix.format == WeightFormat::f16 ? half_to_float(half) : bfloat16_to_float(half);
    }
    return;
  }
  const std::size_t scales = scale_bytes(matrix);
  const std::size_t group_bytes = matrix.group_bytes();
  for (std::uint32_t g = 0; g < matrix.columns / matrix.group; ++g) {
    const std::byte* at = panel + g * group_bytes;
    const float scale = get_scale(matrix.wide_scales, at, lane);
    const float minimum = matrix.minimum ? get_scale(matrix.wide_scales, at + scales, lane) : 0.0f;
    at += scales * (matrix.minimum ? 2 : 1);
    float* values = out.data() + std::size_t{g} * matrix.group;
    for (std::uint32_t k = 0; k < matrix.group; ++k) {
      int q = 0;
      if (matrix.format == WeightFormat::q8) {
        q = static_cast<std::int8_t>(at[k * kLanes + lane]);
      } else {
        std::uint32_t word = 0;
        std::memcpy(&word, at + (k / 8 * kLanes + lane) * 4, 4);
        q = static_cast<int>((word >> (4 * (k % 8))) & 15u) + (matrix.minimum ? 0 : -8);
      }
      values[k] = scale * static_cast<float>(q) + minimum;
    }
  }
}

}  // namespace switchyard::model
