// What the processes of a pool say to each other, over a Channel.
//
//   instance -> router    Hello, TokenBatch, Stats
//   router   -> decode    Generate, Cancel
//   decode   -> prefill   PrefillOrder, CancelPrefill
//   prefill  -> decode    PrefillEnded (only when the counter will not tell)
//
// Every read is bounded by the message; parse() errors: corrupt.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "kv/handover.h"
#include "model/sampler.h"
#include "pool/generator.h"
#include "switchyard/result.h"

namespace switchyard::pool {

enum class MessageType : std::uint8_t {
  hello = 1,
  generate,
  cancel,
  token_batch,
  stats,
  prefill_order,
  cancel_prefill,
  prefill_ended,
};

enum class Role : std::uint8_t { prefill = 1, decode = 2, unified = 3 };
std::string_view to_string(Role role);
// Errors: invalid.
Result<Role> parse_role(std::string_view text);

// An instance has loaded its model and takes work.
struct Hello {
  static constexpr MessageType kType = MessageType::hello;
  std::string name;
  Role role = Role::unified;
  std::string image_hash;
  kv::Shape shape;
  std::uint32_t context = 0;  // longest sequence that its pool can hold

  void write_to(ByteWriter& writer) const;
  static Hello read_from(ByteReader& reader);
};

struct Generate {
  static constexpr MessageType kType = MessageType::generate;
  RequestId id = 0;
  std::uint32_t attempt = 0;
  std::vector<std::int32_t> prompt;
  std::vector<std::int32_t> output;  // tokens that were generated before, elsewhere
  model::SamplingParams sampling;
  std::uint32_t max_tokens = 0;  // output included
  std::vector<std::int32_t> end_tokens;
  std::vector<std::byte> prefill;  // PeerAddress; empty: compute the prompt yourself

  void write_to(ByteWriter& writer) const;
  static Generate read_from(ByteReader& reader);
};

struct Cancel {
  static constexpr MessageType kType = MessageType::cancel;
  RequestId id = 0;

  void write_to(ByteWriter& writer) const { writer.write(id); }
  static Cancel read_from(ByteReader& reader) { return {reader.read<RequestId>()}; }
};

// How a request left an instance.
enum class Outcome : std::uint8_t {
  running = 0,
  end_token,
  length,
  retry,   // lost its place (prefill died, blocks were needed elsewhere): submit again with the output so far
  failed,  // cannot be done
};

struct TokenBatch {
  static constexpr MessageType kType = MessageType::token_batch;
  struct Entry {
    RequestId id = 0;
    std::uint32_t attempt = 0;
    std::vector<model::SampledToken> tokens;
    Outcome outcome = Outcome::running;
    Error error{};  // of retry and failed
  };
  std::vector<Entry> entries;

  void write_to(ByteWriter& writer) const;
  static TokenBatch read_from(ByteReader& reader);
};

// Numbers of one instance, for /metrics.
struct Stats {
  static constexpr MessageType kType = MessageType::stats;
  struct Sample {
    std::string name;  // without the product's prefix
    std::string help;
    bool counter = true;  // else a gauge
    double value = 0;
    std::vector<std::pair<std::string, std::string>> labels;
  };
  std::vector<Sample> samples;

  void write_to(ByteWriter& writer) const;
  static Stats read_from(ByteReader& reader);
};

struct PrefillOrder {
  static constexpr MessageType kType = MessageType::prefill_order;
  std::uint64_t job = 0;  // the decode instance's number
  std::vector<std::int32_t> tokens;
  kv::Destination destination;
  std::uint32_t limit_ms = 0;  // from arrival; what is not done by then is given up

  void write_to(ByteWriter& writer) const;
  static PrefillOrder read_from(ByteReader& reader);
};

struct CancelPrefill {
  static constexpr MessageType kType = MessageType::cancel_prefill;
  std::uint64_t job = 0;

  void write_to(ByteWriter& writer) const { writer.write(job); }
  static CancelPrefill read_from(ByteReader& reader) { return {reader.read<std::uint64_t>()}; }
};

// The job is over without having landed, and nothing of it will land any more.
struct PrefillEnded {
  static constexpr MessageType kType = MessageType::prefill_ended;
  std::uint64_t job = 0;
  Error why{};

  void write_to(ByteWriter& writer) const;
  static PrefillEnded read_from(ByteReader& reader);
};

template <class M>
std::vector<std::byte> serialize(const M& message) {
  ByteWriter writer;
  message.write_to(writer);
  return writer.take();
}

template <class M>
Result<M> parse(std::span<const std::byte> payload) {
  ByteReader reader(payload);
  M message = M::read_from(reader);
  if (!reader.finished()) {
    return fail(ErrorCode::corrupt, "a message of type {} and {} bytes is malformed",
                static_cast<int>(M::kType), payload.size());
  }
  return message;
}

}  // namespace switchyard::pool
