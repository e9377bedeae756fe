#include "model/gguf.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <set>

#include "base/bytes.h"
#include "model/dtype.h"

namespace switchyard::model {
namespace {

// Far above what any model's file has.
constexpr std::uint64_t kMaxKeys = 1u << 16;
constexpr std::uint64_t kMaxTensors = 1u << 18;
constexpr std::uint64_t kMaxArrayValues = 1u << 24;  // of all arrays together
constexpr std::uint64_t kMaxKeyBytes = 1u << 16;     // the specification's limit
constexpr std::uint64_t kMaxTensorName = 256;
constexpr std::uint64_t kMaxAlignment = 1u << 20;
constexpr std::uint32_t kMaxDimensions = 4;

// Printable ASCII, as the specification has it of keys; names go into messages as they are.
bool is_plain(std::string_view name, std::uint64_t most) {
  const auto prints = [](char c) { return c >= ' ' && c <= '~'; };
  return !name.empty() && name.size() <= most && std::ranges::all_of(name, prints);
}

// The numbers of gguf_metadata_value_type.
enum class ValueType : std::uint32_t {
  u8 = 0,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64
};

class Parser {
 public:
  explicit Parser(std::span<const std::byte> file) : file_(file), reader_(file) {}

  Result<GgufFile> parse() {
    if (auto status = parse_header(); !status) return pass(status.error());
    for (std::uint64_t i = 0; i < keys_; ++i) {
      if (auto status = parse_key_value(); !status) return pass(status.error());
    }
    if (auto status = find_alignment(); !status) return pass(status.error());
    for (std::uint64_t i = 0; i < tensors_; ++i) {
      if (auto status = parse_tensor(); !status) return pass(status.error());
    }
    if (auto status = check_data(); !status) return pass(status.error());
    return std::move(result_);
  }

 private:
  tl::unexpected<Error> truncated(std::string_view what) const {
    return fail(ErrorCode::corrupt, "the file ends within {} (at byte {} of {})", what, reader_.position(),
                file_.size());
  }

  Status parse_header() {
    const auto magic = reader_.read_bytes(4);
    if (!reader_.ok()) return truncated("the header");
    if (std::memcmp(magic.data(), "GGUF", 4) != 0) return fail(ErrorCode::corrupt, "this is not a GGUF file");
    result_.version = reader_.read<std::uint32_t>();
    tensors_ = reader_.read<std::uint64_t>();
    keys_ = reader_.read<std::uint64_t>();
    if (!reader_.ok()) return truncated("the header");
    if (result_.version != 2 && result_.version != 3) {
      const bool swapped = (result_.version & 0xffff) == 0 && result_.version != 0;
      if (swapped)
        return fail(ErrorCode::unsupported, "the GGUF file is big-endian; convert it to little-endian");
      return fail(ErrorCode::unsupported, "GGUF version {} is not read; versions 2 and 3 are",
                  result_.version);
    }
    // A pair takes at least 13 bytes, a tensor's entry 32.
    if (keys_ > kMaxKeys || keys_ > reader_.remaining() / 13) {
      return fail(ErrorCode::corrupt, "the file claims {} metadata keys, more than it can hold", keys_);
    }
    if (tensors_ > kMaxTensors || tensors_ > reader_.remaining() / 32) {
      return fail(ErrorCode::corrupt, "the file claims {} tensors, more than it can hold", tensors_);
    }
    return {};
  }

  // A u64 length, then so many bytes; fails the reader when they are not there.
  std::string_view read_string() {
    const auto run = reader_.read_bytes(reader_.read<std::uint64_t>());
    return {reinterpret_cast<const char*>(run.data()), run.size()};
  }

  Status parse_key_value() {
    const std::string_view key = read_string();
    const auto type = reader_.read<ValueType>();
    if (!reader_.ok()) return truncated("a metadata key");
    if (!is_plain(key, kMaxKeyBytes)) {
      return fail(ErrorCode::corrupt, "a metadata key of {} bytes is empty, too long or no plain text",
                  key.size());
    }
    auto value = type == ValueType::array ? parse_array(key) : parse_scalar(key, type);
    if (!value) return pass(value.error());
    if (!result_.metadata.values.emplace(std::string(key), std::move(*value)).second) {
      return fail(ErrorCode::corrupt, "metadata key '{}' is there twice", key);
    }
    return {};
  }

  Result<GgufValue> parse_scalar(std::string_view key, ValueType type) {
    GgufValue value;
    switch (type) {
      case ValueType::u8:
        value = std::uint64_t{reader_.read<std::uint8_t>()};
        break;
      case ValueType::i8:
        value = std::int64_t{reader_.read<std::int8_t>()};
        break;
      case ValueType::u16:
        value = std::uint64_t{reader_.read<std::uint16_t>()};
        break;
      case ValueType::i16:
        value = std::int64_t{reader_.read<std::int16_t>()};
        break;
      case ValueType::u32:
        value = std::uint64_t{reader_.read<std::uint32_t>()};
        break;
      case ValueType::i32:
        value = std::int64_t{reader_.read<std::int32_t>()};
        break;
      case ValueType::f32:
        value = double{reader_.read<float>()};
        break;
      case ValueType::u64:
        value = reader_.read<std::uint64_t>();
        break;
      case ValueType::i64:
        value = reader_.read<std::int64_t>();
        break;
      case ValueType::f64:
        value = reader_.read<double>();
        break;
      case ValueType::string:
        value = read_string();
        break;
      case ValueType::boolean: {
        const auto byte = reader_.read<std::uint8_t>();
        if (byte > 1) return fail(ErrorCode::corrupt, "'{}' is a truth value of {}", key, byte);
        value = byte == 1;
        break;
      }
      default:
        return fail(ErrorCode::corrupt, "'{}' has a value of unknown type {}", key,
                    static_cast<std::uint32_t>(type));
    }
    if (!reader_.ok()) return truncated(fmt::format("the value of '{}'", key));
    return value;
  }

  // `Stored` values widened to `Kept`; the count has been checked.
  template <class Stored, class Kept>
  std::vector<Kept> read_values(std::uint64_t count) {
    const auto run = reader_.read_bytes(count * sizeof(Stored));
    std::vector<Kept> values(run.size() / sizeof(Stored));
    for (std::size_t i = 0; i < values.size(); ++i) {
      Stored value;
      std::memcpy(&value, run.data() + i * sizeof(Stored), sizeof(Stored));
      values[i] = static_cast<Kept>(value);
    }
    return values;
  }

  static std::uint64_t smallest_size(ValueType type) {
    switch (type) {
      case ValueType::u8:
      case ValueType::i8:
      case ValueType::boolean:
        return 1;
      case ValueType::u16:
      case ValueType::i16:
        return 2;
      case ValueType::u32:
      case ValueType::i32:
      case ValueType::f32:
        return 4;
      case ValueType::u64:
      case ValueType::i64:
      case ValueType::f64:
      case ValueType::string:
        return 8;
      case ValueType::array:
        return 0;
    }
    return 0;
  }

  Result<GgufValue> parse_array(std::string_view key) {
    const auto type = reader_.read<ValueType>();
    const auto count = reader_.read<std::uint64_t>();
    if (!reader_.ok()) return truncated(fmt::format("the array '{}'", key));
    if (type == ValueType::array) {
      return fail(ErrorCode::unsupported, "'{}' is an array of arrays, which no known model uses", key);
    }
    const std::uint64_t size = smallest_size(type);
    if (size == 0) {
      return fail(ErrorCode::corrupt, "array '{}' has values of unknown type {}", key,
                  static_cast<std::uint32_t>(type));
    }
    if (count > reader_.remaining() / size) {
      return fail(ErrorCode::corrupt, "array '{}' claims {} values, more than the file can hold", key, count);
    }
    if (count > kMaxArrayValues - array_values_) {
      return fail(ErrorCode::corrupt, "array '{}' brings the arrays to more than {} values", key,
                  kMaxArrayValues);
    }
    array_values_ += count;
    GgufArray values;
    switch (type) {
      case ValueType::u8:
      case ValueType::boolean:
        values = read_values<std::uint8_t, std::uint64_t>(count);
        break;
      case ValueType::i8:
        values = read_values<std::int8_t, std::int64_t>(count);
        break;
      case ValueType::u16:
        values = read_values<std::uint16_t, std::uint64_t>(count);
        break;
      case ValueType::i16:
        values = read_values<std::int16_t, std::int64_t>(count);
        break;
      case ValueType::u32:
        values = read_values<std::uint32_t, std::uint64_t>(count);
        break;
      case ValueType::i32:
        values = read_values<std::int32_t, std::int64_t>(count);
        break;
      case ValueType::f32:
        values = read_values<float, double>(count);
        break;
      case ValueType::u64:
        values = read_values<std::uint64_t, std::uint64_t>(count);
        break;
      case ValueType::i64:
        values = read_values<std::int64_t, std::int64_t>(count);
        break;
      case ValueType::f64:
        values = read_values<double, double>(count);
        break;
      default: {
        std::vector<std::string_view> strings;
        strings.reserve(count);
        for (std::uint64_t i = 0; i < count && reader_.ok(); ++i) strings.push_back(read_string());
        values = std::move(strings);
      }
    }
    if (!reader_.ok()) return truncated(fmt::format("the array '{}'", key));
    return GgufValue(std::move(values));
  }

  Status find_alignment() {
    const std::string_view key = "general.alignment";
    if (!result_.metadata.values.contains(key)) return {};
    const auto alignment = result_.metadata.integer(key);
    if (!alignment || *alignment < 8 || *alignment > kMaxAlignment || !std::has_single_bit(*alignment)) {
      return fail(ErrorCode::corrupt, "'{}' must be a power of two from 8 to {}", key, kMaxAlignment);
    }
    result_.alignment = *alignment;
    return {};
  }

  Status parse_tensor() {
    GgufTensor tensor;
    tensor.name = read_string();
    const auto dimensions = reader_.read<std::uint32_t>();
    if (!reader_.ok()) return truncated("the tensor directory");
    if (!is_plain(tensor.name, kMaxTensorName)) {
      return fail(ErrorCode::corrupt, "a tensor's name of {} bytes is empty, too long or no plain text",
                  tensor.name.size());
    }
    if (dimensions == 0 || dimensions > kMaxDimensions) {
      return fail(ErrorCode::corrupt, "tensor '{}' has {} dimensions; 1 to {} are possible", tensor.name,
                  dimensions, kMaxDimensions);
    }
    std::uint64_t values = 1;
    for (std::uint32_t i = 0; i < dimensions; ++i) {
      const auto size = reader_.read<std::uint64_t>();
      if (reader_.ok() && (size == 0 || size > std::numeric_limits<std::int64_t>::max() / values)) {
        return fail(ErrorCode::corrupt, "tensor '{}' has an impossible size of {}", tensor.name, size);
      }
      values *= size;
      tensor.dimensions.push_back(size);
    }
    tensor.type = reader_.read<std::uint32_t>();
    tensor.offset = reader_.read<std::uint64_t>();
    if (!reader_.ok()) return truncated("the tensor directory");
    if (tensor.offset % result_.alignment != 0) {
      return fail(ErrorCode::corrupt, "tensor '{}' starts at {}, not a multiple of {}", tensor.name,
                  tensor.offset, result_.alignment);
    }
    if (!names_.insert(tensor.name).second) {
      return fail(ErrorCode::corrupt, "tensor '{}' is there twice", tensor.name);
    }
    result_.tensors.push_back(std::move(tensor));
    return {};
  }

  // Every tensor of a known type lies within the data, and none overlaps another.
  Status check_data() {
    const std::uint64_t mask = result_.alignment - 1;
    result_.data_offset = (reader_.position() + mask) & ~mask;
    if (result_.tensors.empty()) return {};
    if (result_.data_offset > file_.size()) return truncated("the padding before the data");
    const std::uint64_t available = file_.size() - result_.data_offset;
    std::vector<const GgufTensor*> by_offset;
    for (const GgufTensor& tensor : result_.tensors) by_offset.push_back(&tensor);
    std::ranges::sort(by_offset, {}, &GgufTensor::offset);
    std::uint64_t end = 0;
    for (const GgufTensor* tensor : by_offset) {
      if (tensor->offset < end) {
        return fail(ErrorCode::corrupt, "tensor '{}' overlaps the one before it", tensor->name);
      }
      // Types that are not read here have an unknown size of at least a byte.
      std::uint64_t size = 1;
      if (const auto type = dtype_from_ggml(tensor->type)) {
        auto bytes = tensor_bytes(*tensor, *type);
        if (!bytes) return pass(bytes.error());
        size = *bytes;
      }
      if (tensor->offset > available || size > available - tensor->offset) {
        return fail(ErrorCode::corrupt,
                    "tensor '{}' ends at byte {} of the data, which has {}; the file is truncated",
                    tensor->name, tensor->offset + size, available);
      }
      end = tensor->offset + size;
    }
    return {};
  }

  static Result<std::uint64_t> tensor_bytes(const GgufTensor& tensor, DType type) {
    if (tensor.dimensions[0] % block_values(type) != 0) {
      return fail(ErrorCode::corrupt,
                  "tensor '{}' has rows of {} values, which blocks of {} ({}) do not fill", tensor.name,
                  tensor.dimensions[0], block_values(type), to_string(type));
    }
    std::uint64_t blocks = 1;
    for (const std::uint64_t size : tensor.dimensions) blocks *= size;  // fits, see parse_tensor
    blocks /= block_values(type);
    if (blocks > std::numeric_limits<std::int64_t>::max() / block_bytes(type)) {
      return fail(ErrorCode::corrupt, "tensor '{}' has an impossible size", tensor.name);
    }
    return blocks * block_bytes(type);
  }

  std::span<const std::byte> file_;
  ByteReader reader_;
  std::uint64_t keys_ = 0;
  std::uint64_t tensors_ = 0;
  std::uint64_t array_values_ = 0;
  std::set<std::string_view> names_;
  GgufFile result_;
};

}  // namespace

Result<GgufFile> GgufFile::parse(std::span<const std::byte> file) { return Parser(file).parse(); }

}  // namespace switchyard::model
