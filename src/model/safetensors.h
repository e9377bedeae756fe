// Safetensors files: a JSON header that says where each tensor's bytes are, and the index that spreads a
// checkpoint over several files. Format: https://huggingface.co/docs/safetensors.
//
// Every length, offset and shape is checked against the file; tensors do not overlap. Views point into the
// bytes given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/result.h"

namespace switchyard::model {

// The format's own limit on the header.
inline constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;

struct SafetensorsTensor {
  std::string name;
  std::string type;  // "F32", "BF16", ...
  std::vector<std::uint64_t> shape;
  std::span<const std::byte> bytes;
};

struct SafetensorsFile {
  std::vector<SafetensorsTensor> tensors;  // by name
  std::map<std::string, std::string, std::less<>> metadata;

  // Errors: corrupt, unsupported (a header beyond the limits).
  static Result<SafetensorsFile> parse(std::span<const std::byte> file);
};

// model.safetensors.index.json: tensor name -> file name. File names are of files beside the index: a name
// that leads elsewhere is refused. Errors: corrupt, unsupported (beyond the limits).
Result<std::map<std::string, std::string, std::less<>>> parse_safetensors_index(std::string_view json);

}  // namespace switchyard::model
