#include "pool/records.h"

namespace switchyard::model {

void write_field(ByteWriter& writer, const SamplingParams& params) {
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
  writer.write_vector<LogitBias>(params.logit_bias);
}

void read_field(ByteReader& reader, SamplingParams& params) {
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
  params.logit_bias = reader.read_vector<LogitBias>();
}

void write_field(ByteWriter& writer, const SampledToken& token) {
  writer.write(token.token);
  writer.write(token.logprob);
  writer.write_vector<TokenLogprob>(token.top);
}

void read_field(ByteReader& reader, SampledToken& token) {
  token.token = reader.read<std::int32_t>();
  token.logprob = reader.read<float>();
  token.top = reader.read_vector<TokenLogprob>();
}

}  // namespace switchyard::model
