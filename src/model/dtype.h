// Element types of a checkpoint's tensors, and their sizes. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace switchyard::model {

enum class DType : std::uint32_t { f32, f16, bf16, q8_0, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k };
inline constexpr std::size_t kDTypes = 11;

std::string_view to_string(DType type);  // "f32", "q4_k"
// Values per block and bytes per block of a type; 1 and the element's size for plain ones.
std::uint32_t block_values(DType type);
std::uint32_t block_bytes(DType type);

// The type that a GGUF file names by ggml's number, or a safetensors header by its letters; nullopt for
// others.
std::optional<DType> dtype_from_ggml(std::uint32_t ggml_type);
std::optional<DType> dtype_from_safetensors(std::string_view name);
// ggml's name of a type's number ("Q2_K"), for messages; "unknown" for numbers that ggml does not define.
std::string_view ggml_type_name(std::uint32_t ggml_type);

}  // namespace switchyard::model
