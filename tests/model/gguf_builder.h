// Makes GGUF files for tests, good ones and bad ones: every field is written as given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace switchyard::model {

class GgufBuilder {
 public:
  std::uint32_t version = 3;
  std::uint64_t alignment = 32;

  GgufBuilder& number(std::string_view key, std::uint32_t value) { return scalar(key, 4, value); }
  GgufBuilder& number(std::string_view key, float value) { return scalar(key, 6, value); }
  GgufBuilder& boolean(std::string_view key, bool value) {
    return scalar(key, 7, static_cast<std::uint8_t>(value));
  }

  // A value of any type as it lies in memory.
  template <class T>
  GgufBuilder& scalar(std::string_view key, std::uint32_t type, T value) {
    begin(key, type);
    metadata_.write(value);
    return *this;
  }

  GgufBuilder& string(std::string_view key, std::string_view value) {
    begin(key, 8);
    write_string(metadata_, value);
    return *this;
  }

  GgufBuilder& strings(std::string_view key, const std::vector<std::string>& values) {
    begin_array(key, 8, values.size());
    for (const std::string& value : values) write_string(metadata_, value);
    return *this;
  }

  GgufBuilder& numbers(std::string_view key, const std::vector<std::int32_t>& values) {
    return array(key, 5, std::span<const std::int32_t>(values));
  }

  template <class T>
  GgufBuilder& array(std::string_view key, std::uint32_t type, std::span<const T> values) {
    begin_array(key, type, values.size());
    metadata_.write_bytes(std::as_bytes(values));
    return *this;
  }

  // The head of an array whose values the caller does not write.
  GgufBuilder& begin_array(std::string_view key, std::uint32_t type, std::uint64_t count) {
    begin(key, 9);
    metadata_.write(type);
    metadata_.write(count);
    return *this;
  }

  // `dimensions`: innermost first. The data follows that of the tensor before it, aligned.
  GgufBuilder& tensor(std::string_view name, const std::vector<std::uint64_t>& dimensions, std::uint32_t type,
                      std::span<const std::byte> bytes) {
    pad(data_);
    directory(name, dimensions, type, data_.bytes().size());
    data_.write_bytes(bytes);
    return *this;
  }

  // An entry of the directory without data.
  GgufBuilder& directory(std::string_view name, const std::vector<std::uint64_t>& dimensions,
                         std::uint32_t type, std::uint64_t offset) {
    ++tensors_;
    write_string(directory_, name);
    directory_.write(static_cast<std::uint32_t>(dimensions.size()));
    for (const std::uint64_t size : dimensions) directory_.write(size);
    directory_.write(type);
    directory_.write(offset);
    return *this;
  }

  std::vector<std::byte> build() const { return build(tensors_, keys_); }

  // With counts that may not be true.
  std::vector<std::byte> build(std::uint64_t tensors, std::uint64_t keys) const {
    ByteWriter file;
    file.write_bytes(std::as_bytes(std::span("GGUF", 4)));
    file.write(version);
    file.write(tensors);
    file.write(keys);
    file.write_bytes(metadata_.bytes());
    file.write_bytes(directory_.bytes());
    pad(file);
    file.write_bytes(data_.bytes());
    return file.take();
  }

 private:
  static void write_string(ByteWriter& writer, std::string_view text) {
    writer.write<std::uint64_t>(text.size());
    writer.write_bytes(std::as_bytes(std::span(text)));
  }

  void pad(ByteWriter& writer) const {
    while (writer.bytes().size() % alignment != 0) writer.write(std::byte{0});
  }

  void begin(std::string_view key, std::uint32_t type) {
    ++keys_;
    write_string(metadata_, key);
    metadata_.write(type);
  }

  ByteWriter metadata_;
  ByteWriter directory_;
  ByteWriter data_;
  std::uint64_t keys_ = 0;
  std::uint64_t tensors_ = 0;
};

}  // namespace switchyard::model
