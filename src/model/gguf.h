// GGUF files (versions 2 and 3): metadata and tensor directory. Format: the GGUF specification of ggml.
//
// Every count, length and offset is checked against the file before it is used; nothing is allocated on the
// word of the file alone. Views point into the bytes given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "switchyard/result.h"

namespace switchyard::model {

using GgufArray = std::variant<std::vector<std::uint64_t>, std::vector<std::int64_t>, std::vector<double>,
                               std::vector<std::string_view>>;
using GgufValue = std::variant<std::uint64_t, std::int64_t, double, bool, std::string_view, GgufArray>;

class GgufMetadata {
 public:
  std::map<std::string, GgufValue, std::less<>> values;

  // Absent, or of another type: nullopt / nullptr. Integers convert between signs where the value fits.
  std::optional<std::uint64_t> integer(std::string_view key) const;
  std::optional<double> real(std::string_view key) const;  // integers too
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> string(std::string_view key) const;
  const std::vector<std::string_view>* strings(std::string_view key) const;
  std::optional<std::vector<std::int64_t>> integers(std::string_view key) const;
  std::optional<std::vector<double>> reals(std::string_view key) const;
};

struct GgufTensor {
  std::string_view name;
  std::uint32_t type = 0;                 // ggml_type
  std::vector<std::uint64_t> dimensions;  // innermost first, as the file has them
  std::uint64_t offset = 0;               // from the start of the data section
};

struct GgufFile {
  std::uint32_t version = 0;
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;
  std::uint64_t data_offset = 0;  // of the data section in the file
  std::uint64_t alignment = 32;

  // Errors: corrupt, unsupported (version, big-endian).
  static Result<GgufFile> parse(std::span<const std::byte> file);
};

}  // namespace switchyard::model
