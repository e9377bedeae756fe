// Records that say once which fields they have, and are written and read from that.
//
//   struct Join {
//     std::uint64_t job = 0;
//     std::vector<Row> rows;
//     static auto fields(auto& self) { return std::tie(self.job, self.rows); }
//   };
//
// A field is a number, an enumeration, a bool, a duration, a string, another record, or a vector of any of
// these; anything else has overloads of write_field and read_field beside its type. Reading is bounded by the
// bytes there are: a count that they cannot hold is refused before anything is allocated.
#pragma once

#include <chrono>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "base/bytes.h"

namespace switchyard {

template <class T>
concept Record = requires(T& value) {
  T::fields(value);
};

template <class T>
concept Plain = std::is_arithmetic_v<T> || std::is_enum_v<T>;

template <class T>
requires(Plain<T> && !std::is_same_v<T, bool>) void write_field(ByteWriter& writer, const T& value) {
  writer.write(value);
}
inline void write_field(ByteWriter& writer, const bool& value) {
  writer.write(static_cast<std::uint8_t>(value));
}
inline void write_field(ByteWriter& writer, const std::chrono::nanoseconds& value) {
  writer.write(value.count());
}
inline void write_field(ByteWriter& writer, const std::string& value) { writer.write_string(value); }
template <Record T>
void write_field(ByteWriter& writer, const T& value);
template <class T>
void write_field(ByteWriter& writer, const std::vector<T>& values);

template <class T>
requires(Plain<T> && !std::is_same_v<T, bool>) void read_field(ByteReader& reader, T& value) {
  value = reader.read<T>();
}
inline void read_field(ByteReader& reader, bool& value) { value = reader.read<std::uint8_t>() != 0; }
inline void read_field(ByteReader& reader, std::chrono::nanoseconds& value) {
  value = std::chrono::nanoseconds(reader.read<std::chrono::nanoseconds::rep>());
}
inline void read_field(ByteReader& reader, std::string& value) { value = reader.read_string(); }
template <Record T>
void read_field(ByteReader& reader, T& value);
template <class T>
void read_field(ByteReader& reader, std::vector<T>& values);

template <Record T>
void write_field(ByteWriter& writer, const T& value) {
  std::apply([&](const auto&... each) { (write_field(writer, each), ...); }, T::fields(value));
}

template <class T>
void write_field(ByteWriter& writer, const std::vector<T>& values) {
  if constexpr (Plain<T> || std::is_same_v<T, std::byte>) {
    writer.write_vector<T>(values);
  } else {
    writer.write(static_cast<std::uint32_t>(values.size()));
    for (const T& value : values) write_field(writer, value);
  }
}

template <Record T>
void read_field(ByteReader& reader, T& value) {
  std::apply([&](auto&... each) { (read_field(reader, each), ...); }, T::fields(value));
}

template <class T>
void read_field(ByteReader& reader, std::vector<T>& values) {
  if constexpr (Plain<T> || std::is_same_v<T, std::byte>) {
    values = reader.read_vector<T>();
  } else {
    values.clear();
    const auto count = reader.read<std::uint32_t>();
    // Every element takes at least a byte; memory grows as elements are really read.
    if (count > reader.remaining()) return reader.reject();
    for (std::uint32_t i = 0; i < count && reader.ok(); ++i) read_field(reader, values.emplace_back());
  }
}

}  // namespace switchyard
