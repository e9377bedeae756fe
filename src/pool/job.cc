#include "pool/job.h"

#include <algorithm>

#include "base/log.h"
#include "model/sampler.h"

namespace switchyard::pool {

Job::Progress Job::advance(TimePoint now) {
  if (model::Runtime* const runtime = parts_.berths.runtime(model_)) {
    vocab_ = runtime->config().vocab;
    return advance(*runtime, now);
  }
  if (parts_.berths.loading(model_)) return Progress::waits;
  for (HeldRequest* const request : unfinished()) {
    parts_.requests.lose(*request,
                         {ErrorCode::not_found, fmt::format("model {} is not loaded here", model_)});
  }
  return Progress::over;
}

Status Job::step(model::Runtime& runtime, std::span<const model::Chunk> chunks, std::size_t logit_rows,
                 const model::LayerDone& layer_done) {
  logits_.resize(std::max(logits_.size(), logit_rows * vocab_));
  const TimePoint start = monotonic_now();
  const Status status = runtime.step(chunks, std::span(logits_).first(logit_rows * vocab_), layer_done);
  const Nanos took = monotonic_now() - start;
  if (!status) log::error("a step failed: {}", status.error().message);
  ended_.took += took;
  ++ended_.steps;
  ++counts_.steps;
  counts_.step_time += took;
  for (const model::Chunk& chunk : chunks) counts_.step_tokens += chunk.tokens.size();
  return status;
}

RowOutcome Job::take_token(HeldRequest& request, std::size_t row, Tokens& tokens) {
  const auto logits = std::span(logits_).subspan(row * vocab_, vocab_);
  Tokens::Entry& entry = tokens.entries.emplace_back();
  entry.ticket = request.ticket();
  if (const Status numbers = model::check_logits(logits); !numbers) {
    log::error("request {} of model {}: {}", request.ticket().id, model_, numbers.error().message);
    entry.outcome = RowOutcome::failed;
    entry.error = numbers.error();
    return entry.outcome;
  }
  auto sampled = model::sample(logits, request.what.sampling, request.prompt(), request.output());
  const auto& ends = request.what.end_tokens;
  if (std::find(ends.begin(), ends.end(), sampled.token) != ends.end()) {
    entry.outcome = RowOutcome::end_token;
    return entry.outcome;
  }
  request.history.push_back(sampled.token);
  ++counts_.output_tokens;
  entry.tokens.push_back(std::move(sampled));
  if (request.output().size() >= request.what.max_tokens) entry.outcome = RowOutcome::length;
  return entry.outcome;
}

void Job::fail_request(HeldRequest& request, const Error& why) {
  Tokens tokens{.job = id()};
  tokens.entries.push_back({.ticket = request.ticket(), .outcome = RowOutcome::failed, .error = why});
  parts_.outbox.report(std::move(tokens));
  parts_.requests.end_silently(request);
}

Status Job::check_request(HeldRequest& request, const model::Runtime& runtime) const {
  if (request.checked) return {};
  const model::KvLayout& layout = runtime.kv_layout();
  const kv::Shape shape{
      .layers = layout.layers, .block_tokens = model::kBlockTokens, .layer_bytes = layout.layer_bytes()};
  if (request.what.model != model_ || request.what.shape != shape) {
    return fail(ErrorCode::invalid,
                "it was introduced for model {} with KV of {} x {} bytes; model {} has {} x {}",
                request.what.model, request.what.shape.layers, request.what.shape.layer_bytes, model_,
                shape.layers, shape.layer_bytes);
  }
  const Status fits = check(request, runtime.config());
  request.checked = fits.has_value();
  return fits;
}

}  // namespace switchyard::pool
