#include "model/safetensors.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "base/bytes.h"
#include "model/bounded_json.h"

namespace switchyard::model {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxDimensions = 8;
constexpr JsonLimits kHeaderLimits{.depth = 8, .values = 1u << 21};  // some ten values a tensor

// Bytes of a value of the format's types.
std::optional<std::uint64_t> value_bytes(std::string_view type) {
  static constexpr std::pair<std::string_view, std::uint64_t> kSizes[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"U16", 2}, {"I16", 2}, {"F16", 2},
      {"BF16", 2}, {"U32", 4}, {"I32", 4}, {"F32", 4},     {"U64", 8},     {"I64", 8}, {"F64", 8}};
  for (const auto& [name, size] : kSizes) {
    if (name == type) return size;
  }
  return std::nullopt;
}

std::optional<std::vector<std::uint64_t>> unsigned_list(const json& value) {
  if (!value.is_array()) return std::nullopt;
  std::vector<std::uint64_t> list;
  for (const json& item : value) {
    if (!item.is_number_unsigned()) return std::nullopt;
    list.push_back(item.get<std::uint64_t>());
  }
  return list;
}

// Bytes of the whole tensor, or nullopt where they do not fit 63 bits.
std::optional<std::uint64_t> tensor_bytes(std::uint64_t value_size, std::span<const std::uint64_t> shape) {
  if (std::ranges::find(shape, 0u) != shape.end()) return 0;
  std::uint64_t bytes = value_size;
  for (const std::uint64_t size : shape) {
    if (size > std::numeric_limits<std::int64_t>::max() / bytes) return std::nullopt;
    bytes *= size;
  }
  return bytes;
}

Result<SafetensorsTensor> parse_tensor(const std::string& name, const json& entry,
                                       std::span<const std::byte> data) {
  // Names go into messages as they are.
  if (!std::ranges::all_of(name, [](char c) { return c >= ' ' && c <= '~'; })) {
    return fail(ErrorCode::corrupt, "a tensor's name is no plain text");
  }
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets")) {
    return fail(ErrorCode::corrupt, "tensor '{}' lacks dtype, shape or data_offsets", name);
  }
  auto type = json_string(entry, "dtype");
  if (!type || !*type) return fail(ErrorCode::corrupt, "tensor '{}' has a dtype that is not a string", name);
  SafetensorsTensor tensor{.name = name, .type = std::move(**type)};
  const auto size = value_bytes(tensor.type);
  if (!size) return fail(ErrorCode::unsupported, "tensor '{}' has values of type '{}'", name, tensor.type);
  auto shape = unsigned_list(entry["shape"]);
  if (!shape || shape->size() > kMaxDimensions) {
    return fail(ErrorCode::corrupt, "tensor '{}' has a shape that is not a list of at most {} sizes", name,
                kMaxDimensions);
  }
  tensor.shape = std::move(*shape);
  const auto offsets = unsigned_list(entry["data_offsets"]);
  if (!offsets || offsets->size() != 2 || offsets->front() > offsets->back()) {
    return fail(ErrorCode::corrupt, "tensor '{}' has data_offsets that are not a start and an end", name);
  }
  const std::uint64_t start = offsets->front();
  const std::uint64_t end = offsets->back();
  if (end > data.size()) {
    return fail(ErrorCode::corrupt,
                "tensor '{}' ends at byte {} of the data, which has {}; the file is truncated", name, end,
                data.size());
  }
  const auto expected = tensor_bytes(*size, tensor.shape);
  if (!expected || *expected != end - start) {
    return fail(ErrorCode::corrupt, "tensor '{}' has {} bytes, which is not what its shape takes", name,
                end - start);
  }
  tensor.bytes = data.subspan(start, end - start);
  return tensor;
}

Status check_overlap(const std::vector<SafetensorsTensor>& tensors) {
  std::vector<const SafetensorsTensor*> by_place;
  for (const SafetensorsTensor& tensor : tensors) {
    if (!tensor.bytes.empty()) by_place.push_back(&tensor);
  }
  std::ranges::sort(by_place, {}, [](const SafetensorsTensor* tensor) { return tensor->bytes.data(); });
  for (std::size_t i = 1; i < by_place.size(); ++i) {
    if (by_place[i]->bytes.data() < by_place[i - 1]->bytes.data() + by_place[i - 1]->bytes.size()) {
      return fail(ErrorCode::corrupt, "tensors '{}' and '{}' overlap", by_place[i - 1]->name,
                  by_place[i]->name);
    }
  }
  return {};
}

}  // namespace

Result<SafetensorsFile> SafetensorsFile::parse(std::span<const std::byte> file) {
  ByteReader reader(file);
  const auto length = reader.read<std::uint64_t>();
  if (!reader.ok()) return fail(ErrorCode::corrupt, "the file ends within the length of its header");
  if (length > kMaxSafetensorsHeader) {
    return fail(ErrorCode::corrupt, "the header claims {} bytes; the format allows {}", length,
                kMaxSafetensorsHeader);
  }
  const auto header = reader.read_bytes(length);
  if (!reader.ok()) {
    return fail(ErrorCode::corrupt, "the header claims {} bytes of a file of {}; the file is truncated",
                length, file.size());
  }
  const auto parsed =
      parse_json_object({reinterpret_cast<const char*>(header.data()), header.size()}, kHeaderLimits);
  if (!parsed) return fail_at("the header", parsed.error());
  const auto data = file.subspan(reader.position());
  SafetensorsFile result;
  for (const auto& [name, entry] : parsed->items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) return fail(ErrorCode::corrupt, "__metadata__ is not an object");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string())
          return fail(ErrorCode::corrupt, "__metadata__ has a value that is not a string");
        result.metadata.emplace(key, value.get<std::string>());
      }
      continue;
    }
    auto tensor = parse_tensor(name, entry, data);
    if (!tensor) return pass(tensor.error());
    result.tensors.push_back(std::move(*tensor));
  }
  if (auto status = check_overlap(result.tensors); !status) return pass(status.error());
  return result;
}

Result<std::map<std::string, std::string, std::less<>>> parse_safetensors_index(std::string_view text) {
  const auto parsed = parse_json_object(text, kHeaderLimits);
  if (!parsed) return pass(parsed.error());
  const auto map = parsed->find("weight_map");
  if (map == parsed->end() || !map->is_object()) return fail(ErrorCode::corrupt, "there is no weight_map");
  std::map<std::string, std::string, std::less<>> files;
  for (const auto& [name, value] : map->items()) {
    if (!value.is_string()) return fail(ErrorCode::corrupt, "the file of tensor '{}' is not a string", name);
    const auto& file = value.get_ref<const std::string&>();
    if (file.empty() || file.find('/') != std::string::npos || file.find('\0') != std::string::npos ||
        file == "." || file == "..") {
      return fail(ErrorCode::corrupt, "the file of tensor '{}' is '{}', which is not a file beside the index",
                  name, file);
    }
    files.emplace(name, file);
  }
  return files;
}

}  // namespace switchyard::model
