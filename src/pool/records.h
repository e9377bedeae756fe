// Writing and reading the records that processes of a pool send each other (base/record.h), and the fields of
// theirs that are types of other layers.
#pragma once

#include <span>
#include <vector>

#include "base/record.h"
#include "kv/handover.h"
#include "memory/shared_memory.h"
#include "model/sampler.h"
#include "switchyard/result.h"

namespace switchyard {

inline void write_field(ByteWriter& writer, const Error& error) {
  writer.write(error.code);
  writer.write_string(error.message);
}
inline void read_field(ByteReader& reader, Error& error) {
  error.code = reader.read<ErrorCode>();
  error.message = reader.read_string();
}

inline void write_field(ByteWriter& writer, const SharedMemoryName& name) { name.write_to(writer); }
inline void read_field(ByteReader& reader, SharedMemoryName& name) {
  name = SharedMemoryName::read_from(reader);
}

}  // namespace switchyard

namespace switchyard::kv {

inline void write_field(ByteWriter& writer, const Destination& destination) { destination.write_to(writer); }
inline void read_field(ByteReader& reader, Destination& destination) {
  if (auto read = Destination::read_from(reader)) {
    destination = *std::move(read);
  } else {
    reader.reject();
  }
}

}  // namespace switchyard::kv

namespace switchyard::model {

void write_field(ByteWriter& writer, const SamplingParams& params);
void read_field(ByteReader& reader, SamplingParams& params);
void write_field(ByteWriter& writer, const SampledToken& token);
void read_field(ByteReader& reader, SampledToken& token);

}  // namespace switchyard::model

namespace switchyard::pool {

template <Record M>
std::vector<std::byte> serialize(const M& message) {
  ByteWriter writer;
  write_field(writer, message);
  return writer.take();
}

// Errors: corrupt.
template <Record M>
Result<M> parse(std::span<const std::byte> payload) {
  ByteReader reader(payload);
  M message;
  read_field(reader, message);
  if (!reader.finished()) {
    return fail(ErrorCode::corrupt, "a message of type {} and {} bytes is malformed",
                static_cast<int>(M::kType), payload.size());
  }
  return message;
}

}  // namespace switchyard::pool
