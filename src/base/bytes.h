// Bounded reading and writing of little-endian records: messages, keys, file headers.
//
// ByteReader never reads past its span: the first short or oversized read makes it fail, every later read
// returns zeros, and ok() says so once at the end. Not thread-safe; allocates only in ByteWriter.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace switchyard {

static_assert(std::endian::native == std::endian::little, "records are little-endian, written as they lie in memory");

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool ok() const { return ok_; }
  // For what was read but makes no sense.
  void reject() { ok_ = false; }
  // True when everything was read and nothing was missing.
  bool finished() const { return ok_ && position_ == bytes_.size(); }
  std::size_t position() const { return position_; }
  std::size_t remaining() const { return bytes_.size() - position_; }

  template <class T>
    requires std::is_trivially_copyable_v<T>
  T read() {
    T value{};
    if (auto run = read_bytes(sizeof(T)); run.size() == sizeof(T)) std::memcpy(&value, run.data(), sizeof(T));
    return value;
  }

  // A view into the span; empty (and failed) when fewer than `count` bytes are left.
  std::span<const std::byte> read_bytes(std::size_t count) {
    if (!ok_ || count > remaining()) {
      ok_ = false;
      return {};
    }
    auto run = bytes_.subspan(position_, count);
    position_ += count;
    return run;
  }

  // A u32 length, then so many bytes.
  std::string_view read_string() {
    auto run = read_bytes(read<std::uint32_t>());
    return {reinterpret_cast<const char*>(run.data()), run.size()};
  }

  // A u32 count, then so many values.
  template <class T>
    requires std::is_trivially_copyable_v<T>
  std::vector<T> read_vector() {
    const std::size_t count = read<std::uint32_t>();
    if (!ok_ || count > remaining() / sizeof(T)) {
      ok_ = false;
      return {};
    }
    auto run = read_bytes(count * sizeof(T));
    std::vector<T> values(count);
    if (count != 0) std::memcpy(values.data(), run.data(), run.size());
    return values;
  }

 private:
  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
  bool ok_ = true;
};

class ByteWriter {
 public:
  std::span<const std::byte> bytes() const { return bytes_; }
  std::vector<std::byte> take() { return std::move(bytes_); }

  template <class T>
    requires std::is_trivially_copyable_v<T>
  void write(const T& value) {
    write_bytes(std::as_bytes(std::span(&value, 1)));
  }

  void write_bytes(std::span<const std::byte> run) { bytes_.insert(bytes_.end(), run.begin(), run.end()); }

  void write_string(std::string_view text) {
    write(static_cast<std::uint32_t>(text.size()));
    write_bytes(std::as_bytes(std::span(text.data(), text.size())));
  }

  template <class T>
    requires std::is_trivially_copyable_v<T>
  void write_vector(std::span<const T> values) {
    write(static_cast<std::uint32_t>(values.size()));
    write_bytes(std::as_bytes(values));
  }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace switchyard
