#include "model/dtype.h"

#include <array>

namespace switchyard::model {
namespace {

struct Type {
  std::string_view name;
  std::uint32_t ggml;  // the number of ggml_type
  std::uint32_t values;
  std::uint32_t bytes;
};

// In the order of DType. Sizes: the block structures of ggml-common.h.
constexpr std::array<Type, kDTypes> kTypes = {{
    {"f32", 0, 1, 4},
    {"f16", 1, 1, 2},
    {"bf16", 30, 1, 2},
    {"q8_0", 8, 32, 34},
    {"q4_0", 2, 32, 18},
    {"q4_1", 3, 32, 20},
    {"q4_k", 12, 256, 144},
    {"q5_0", 6, 32, 22},
    {"q5_1", 7, 32, 24},
    {"q5_k", 13, 256, 176},
    {"q6_k", 14, 256, 210},
}};

const Type& type_of(DType type) { return kTypes[static_cast<std::size_t>(type)]; }

}  // namespace

std::string_view to_string(DType type) { return type_of(type).name; }
std::uint32_t block_values(DType type) { return type_of(type).values; }
std::uint32_t block_bytes(DType type) { return type_of(type).bytes; }

std::optional<DType> dtype_from_ggml(std::uint32_t ggml_type) {
  for (std::size_t i = 0; i < kTypes.size(); ++i) {
    if (kTypes[i].ggml == ggml_type) return static_cast<DType>(i);
  }
  return std::nullopt;
}

std::optional<DType> dtype_from_safetensors(std::string_view name) {
  if (name == "F32") return DType::f32;
  if (name == "F16") return DType::f16;
  if (name == "BF16") return DType::bf16;
  return std::nullopt;
}

std::string_view ggml_type_name(std::uint32_t ggml_type) {
  // 4, 5, 31 to 33 and 36 to 38 are types that ggml has removed.
  static constexpr std::array<std::string_view, 40> kNames = {
      "F32",     "F16",     "Q4_0",    "Q4_1",  "removed", "removed", "Q5_0",    "Q5_1",
      "Q8_0",    "Q8_1",    "Q2_K",    "Q3_K",  "Q4_K",    "Q5_K",    "Q6_K",    "Q8_K",
      "IQ2_XXS", "IQ2_XS",  "IQ3_XXS", "IQ1_S", "IQ4_NL",  "IQ3_S",   "IQ2_S",   "IQ4_XS",
      "I8",      "I16",     "I32",     "I64",   "F64",     "IQ1_M",   "BF16",    "removed",
      "removed", "removed", "TQ1_0",   "TQ2_0", "removed", "removed", "removed", "MXFP4"};
  return ggml_type < kNames.size() ? kNames[ggml_type] : "unknown";
}

}  // namespace switchyard::model
