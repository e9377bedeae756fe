#include "pool/messages.h"

namespace switchyard::pool {
namespace {

void write_error(ByteWriter& writer, const Error& error) {
  writer.write(error.code);
  writer.write_string(error.message);
}

Error read_error(ByteReader& reader) {
  const auto code = reader.read<ErrorCode>();
  return {code, std::string(reader.read_string())};
}

// Reads a u32 count of records of at least `minimum_bytes` each; 0 when the message cannot hold so many.
std::uint32_t read_count(ByteReader& reader, std::size_t minimum_bytes) {
  const auto count = reader.read<std::uint32_t>();
  if (count > reader.remaining() / minimum_bytes) {
    reader.reject();
    return 0;
  }
  return count;
}

void write_sampling(ByteWriter& writer, const model::SamplingParams& params) {
  writer.write(params.temperature);
  writer.write(params.top_k);
  writer.write(params.top_p);
  writer.write(params.min_p);
  writer.write(params.repetition_penalty);
  writer.write(params.presence_penalty);
  writer.write(params.frequency_penalty);
  writer.write(params.seed);
  writer.write(params.top_logprobs);
  writer.write(static_cast<std::uint8_t>(params.logprobs));
  writer.write_vector<model::LogitBias>(params.logit_bias);
}

model::SamplingParams read_sampling(ByteReader& reader) {
  model::SamplingParams params;
  params.temperature = reader.read<float>();
  params.top_k = reader.read<std::uint32_t>();
  params.top_p = reader.read<float>();
  params.min_p = reader.read<float>();
  params.repetition_penalty = reader.read<float>();
  params.presence_penalty = reader.read<float>();
  params.frequency_penalty = reader.read<float>();
  params.seed = reader.read<std::uint64_t>();
  params.top_logprobs = reader.read<std::uint32_t>();
  params.logprobs = reader.read<std::uint8_t>() != 0;
  params.logit_bias = reader.read_vector<model::LogitBias>();
  return params;
}

}  // namespace

std::string_view to_string(Role role) {
  switch (role) {
    case Role::prefill:
      return "prefill";
    case Role::decode:
      return "decode";
    case Role::unified:
      return "unified";
  }
  return "unknown";
}

Result<Role> parse_role(std::string_view text) {
  for (const Role role : {Role::prefill, Role::decode, Role::unified}) {
    if (text == to_string(role)) return role;
  }
  return fail(ErrorCode::invalid, "'{}' is no role; use prefill, decode or unified", text);
}

void Hello::write_to(ByteWriter& writer) const {
  writer.write_string(name);
  writer.write(role);
  writer.write_string(image_hash);
  writer.write(shape.layers);
  writer.write(shape.block_tokens);
  writer.write(shape.layer_bytes);
  writer.write(context);
}

Hello Hello::read_from(ByteReader& reader) {
  Hello hello;
  hello.name = reader.read_string();
  hello.role = reader.read<Role>();
  hello.image_hash = reader.read_string();
  hello.shape.layers = reader.read<std::uint32_t>();
  hello.shape.block_tokens = reader.read<std::uint32_t>();
  hello.shape.layer_bytes = reader.read<std::uint64_t>();
  hello.context = reader.read<std::uint32_t>();
  return hello;
}

void Generate::write_to(ByteWriter& writer) const {
  writer.write(id);
  writer.write(attempt);
  writer.write_vector<std::int32_t>(prompt);
  writer.write_vector<std::int32_t>(output);
  write_sampling(writer, sampling);
  writer.write(max_tokens);
  writer.write_vector<std::int32_t>(end_tokens);
  writer.write_vector<std::byte>(prefill);
}

Generate Generate::read_from(ByteReader& reader) {
  Generate generate;
  generate.id = reader.read<RequestId>();
  generate.attempt = reader.read<std::uint32_t>();
  generate.prompt = reader.read_vector<std::int32_t>();
  generate.output = reader.read_vector<std::int32_t>();
  generate.sampling = read_sampling(reader);
  generate.max_tokens = reader.read<std::uint32_t>();
  generate.end_tokens = reader.read_vector<std::int32_t>();
  generate.prefill = reader.read_vector<std::byte>();
  return generate;
}

void TokenBatch::write_to(ByteWriter& writer) const {
  writer.write(static_cast<std::uint32_t>(entries.size()));
  for (const Entry& entry : entries) {
    writer.write(entry.id);
    writer.write(entry.attempt);
    writer.write(static_cast<std::uint32_t>(entry.tokens.size()));
    for (const model::SampledToken& token : entry.tokens) {
      writer.write(token.token);
      writer.write(token.logprob);
      writer.write_vector<model::TokenLogprob>(token.top);
    }
    writer.write(entry.outcome);
    write_error(writer, entry.error);
  }
}

TokenBatch TokenBatch::read_from(ByteReader& reader) {
  TokenBatch batch;
  const auto entries = read_count(reader, 25);
  for (std::uint32_t i = 0; i < entries && reader.ok(); ++i) {
    Entry entry;
    entry.id = reader.read<RequestId>();
    entry.attempt = reader.read<std::uint32_t>();
    const auto tokens = read_count(reader, 12);
    for (std::uint32_t t = 0; t < tokens && reader.ok(); ++t) {
      model::SampledToken token;
      token.token = reader.read<std::int32_t>();
      token.logprob = reader.read<float>();
      token.top = reader.read_vector<model::TokenLogprob>();
      entry.tokens.push_back(std::move(token));
    }
    entry.outcome = reader.read<Outcome>();
    entry.error = read_error(reader);
    batch.entries.push_back(std::move(entry));
  }
  return batch;
}

void Stats::write_to(ByteWriter& writer) const {
  writer.write(static_cast<std::uint32_t>(samples.size()));
  for (const Sample& sample : samples) {
    writer.write_string(sample.name);
    writer.write_string(sample.help);
    writer.write(static_cast<std::uint8_t>(sample.counter));
    writer.write(sample.value);
    writer.write(static_cast<std::uint32_t>(sample.labels.size()));
    for (const auto& [label, value] : sample.labels) {
      writer.write_string(label);
      writer.write_string(value);
    }
  }
}

Stats Stats::read_from(ByteReader& reader) {
  Stats stats;
  const auto samples = read_count(reader, 21);
  for (std::uint32_t i = 0; i < samples && reader.ok(); ++i) {
    Sample sample;
    sample.name = reader.read_string();
    sample.help = reader.read_string();
    sample.counter = reader.read<std::uint8_t>() != 0;
    sample.value = reader.read<double>();
    const auto labels = read_count(reader, 8);
    for (std::uint32_t j = 0; j < labels && reader.ok(); ++j) {
      std::string label(reader.read_string());
      sample.labels.emplace_back(std::move(label), reader.read_string());
    }
    stats.samples.push_back(std::move(sample));
  }
  return stats;
}

void PrefillOrder::write_to(ByteWriter& writer) const {
  writer.write(job);
  writer.write_vector<std::int32_t>(tokens);
  destination.write_to(writer);
  writer.write(limit_ms);
}

PrefillOrder PrefillOrder::read_from(ByteReader& reader) {
  PrefillOrder order;
  order.job = reader.read<std::uint64_t>();
  order.tokens = reader.read_vector<std::int32_t>();
  if (auto destination = kv::Destination::read_from(reader)) {
    order.destination = *std::move(destination);
  } else {
    reader.reject();
  }
  order.limit_ms = reader.read<std::uint32_t>();
  return order;
}

void PrefillEnded::write_to(ByteWriter& writer) const {
  writer.write(job);
  write_error(writer, why);
}

PrefillEnded PrefillEnded::read_from(ByteReader& reader) {
  PrefillEnded ended;
  ended.job = reader.read<std::uint64_t>();
  ended.why = read_error(reader);
  return ended;
}

}  // namespace switchyard::pool
