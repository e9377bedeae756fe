#include "gateway/generation_job.h"

#include <algorithm>
#include <iterator>

#include "gateway/admission_error.h"

namespace switchyard::gateway {
namespace {

// Tokens merged into one chunk when several wait; keeps a chunk small beside the output buffer.
constexpr std::size_t kTokensPerChunk = 32;

ApiError pool_failure(const pool::GenerationEnd& end, std::string_view model) {
  if (end.reason == pool::FinishReason::cancelled) {
    return api_error_from({ErrorCode::cancelled, "The generation was cancelled by the server; try again."});
  }
  // Shed after it had waited for an instance.
  if (end.error.code == ErrorCode::exhausted) return refusal_error({.error = end.error}, model, {});
  ApiError error = api_error_from(end.error);
  // What fails after it was accepted is not the request's fault.
  if (error.status == 400 || error.status == 404) {
    error.status = 500;
    error.type = "server_error";
    error.code = std::string(to_string(end.error.code));
    error.param.reset();
  }
  return error;
}

}  // namespace

void GenerationJob::start(const JobServices& services, std::shared_ptr<const PreparedRequest> request,
                          std::uint32_t client, const std::shared_ptr<Exchange>& exchange) {
  auto job = std::make_shared<GenerationJob>(services, std::move(request), client, exchange);
  exchange->attach(job);
  const PreparedRequest& asked = *job->request_;
  for (Choice& choice : job->choices_) {
    const std::uint32_t sample = choice.index % asked.n;
    const auto submitted = job->submit(choice, sample);
    if (submitted) continue;
    const ApiError error = refusal_error(submitted.error(), asked.model->served.id, asked.refill);
    if (error.status == 429) services.metrics->queue_rejects.Increment();
    job->fail(error);
    return;
  }
  for (const auto& prompt : asked.prompts) {
    asked.model->metrics.prompt_tokens->Increment(static_cast<double>(prompt.tokens.size()));
  }
  job->resume();  // choices of no tokens are ready now
}

GenerationJob::GenerationJob(const JobServices& services, std::shared_ptr<const PreparedRequest> request,
                             std::uint32_t client, const std::shared_ptr<Exchange>& exchange)
    : services_(services),
      request_(std::move(request)),
      client_(client),
      exchange_(exchange),
      accepted_(monotonic_now()) {
  choices_.reserve(request_->prompts.size() * request_->n);
  for (const PreparedPrompt& prompt : request_->prompts) {
    for (std::uint32_t sample = 0; sample < request_->n; ++sample) {
      choices_.emplace_back(
          static_cast<std::uint32_t>(choices_.size()), prompt,
          ChoiceText(request_->model->text->decoder(), request_->stops, request_->keep_tokens));
    }
  }
  unfinished_ = choices_.size();
  services_.metrics->requests_in_flight.Increment();
}

GenerationJob::~GenerationJob() {
  end_all();
  services_.metrics->requests_in_flight.Decrement();
  if (streaming_) services_.metrics->streams.Decrement();
}

tl::expected<void, pool::Refusal> GenerationJob::submit(Choice& choice, std::uint32_t sample) {
  if (choice.prompt->max_tokens == 0) {
    finish(choice, "length");
    return {};
  }
  // A whole answer is bounded by its length; a stream, besides, by how far the client may stay behind.
  const std::size_t limit =
      request_->stream ? std::min<std::size_t>(choice.prompt->max_tokens, services_.max_queued_tokens)
                       : choice.prompt->max_tokens;
  const std::size_t position = choice.index;
  choice.queue = std::make_shared<TokenQueue>(services_.loop, limit, [weak = weak_from_this(), position] {
    if (const auto job = weak.lock()) job->on_wake(position);
  });
  pool::GenerationRequest request;
  request.model = request_->model->served.id;
  request.client = client_;
  request.prompt = choice.prompt->tokens;
  request.sampling = request_->sampling;
  request.sampling.seed = choice_seed(request_->sampling.seed, sample);
  request.max_tokens = choice.prompt->max_tokens;
  request.end_tokens = request_->end_tokens;
  auto id = services_.generator->submit(std::move(request), choice.queue);
  if (!id) {
    choice.queue->close();
    return tl::unexpected(std::move(id.error()));
  }
  choice.id = *id;
  choice.running = true;
  choice.last_token = accepted_;
  return {};
}

void GenerationJob::on_wake(std::size_t index) {
  const auto exchange = exchange_.lock();
  if (over_ || !exchange) return;
  Choice& choice = choices_[index];
  if (choice.queue->overflowed()) {
    over_ = true;
    end_all();
    exchange->drop_slow_client();
    return;
  }
  advance(choice, *exchange);
}

void GenerationJob::resume() {
  const auto exchange = exchange_.lock();
  if (!exchange) return;
  for (Choice& choice : choices_) {
    if (over_) return;
    advance(choice, *exchange);
  }
}

void GenerationJob::advance(Choice& choice, Exchange& exchange) {
  while (!over_ && choice.running && (!request_->stream || exchange.writable())) {
    TokenQueue::Batch batch = choice.queue->take(kTokensPerChunk);
    if (batch.empty()) break;
    if (!consume(choice, batch)) return;
    deliver(choice, exchange);
  }
  // One that ended without a token.
  const bool to_open = !choice.running && !choice.opened;
  if (!over_ && to_open && (!request_->stream || exchange.writable())) deliver(choice, exchange);
  if (!over_ && unfinished_ == 0 && std::ranges::all_of(choices_, &Choice::opened)) complete(exchange);
}

bool GenerationJob::consume(Choice& choice, TokenQueue::Batch& batch) {
  std::size_t used = 0;
  for (const auto& token : batch.tokens) {
    choice.text.push(token);
    ++used;
    if (choice.text.stopped()) break;
  }
  observe(choice, used);
  if (choice.text.stopped()) {
    end_choice(choice, !batch.end);
    finish(choice, "stop");
  } else if (batch.end) {
    choice.running = false;
    if (batch.end->reason == pool::FinishReason::cancelled ||
        batch.end->reason == pool::FinishReason::failed) {
      fail(pool_failure(*batch.end, request_->model->served.id));
      return false;
    }
    end_choice(choice, false);
    choice.text.finish();
    const bool length = batch.end->reason == pool::FinishReason::length && !choice.text.stopped();
    finish(choice, length ? "length" : "stop");
  }
  return true;
}

void GenerationJob::observe(Choice& choice, std::size_t tokens) {
  if (tokens == 0) return;
  const ModelMetrics& metrics = request_->model->metrics;
  const TimePoint now = monotonic_now();
  const bool first = choice.text.token_count() == tokens;
  if (first) {
    metrics.time_to_first_token->Observe(to_seconds(now - accepted_));
  } else {
    // Tokens that come together share the time since the last one.
    const double seconds = to_seconds(now - choice.last_token) / static_cast<double>(tokens);
    for (std::size_t i = 0; i < tokens; ++i) metrics.time_between_tokens->Observe(seconds);
  }
  metrics.completion_tokens->Increment(static_cast<double>(tokens));
  choice.last_token = now;
}

void GenerationJob::deliver(Choice& choice, Exchange& exchange) {
  if (!request_->stream) {
    ChoiceDelta delta = choice.text.take();
    choice.opened = true;
    choice.whole.text += delta.text;
    choice.whole.tokens.insert(choice.whole.tokens.end(), std::make_move_iterator(delta.tokens.begin()),
                               std::make_move_iterator(delta.tokens.end()));
    return;
  }
  const ReplyFormat& format = *request_->format;
  if (!streaming_) {
    streaming_ = true;
    services_.metrics->streams.Increment();
    exchange.begin_stream({{"X-Request-Id", request_->id}});
  }
  if (!choice.opened) {
    choice.opened = true;
    if (const std::string opening = format.opening(choice.index); !opening.empty()) {
      exchange.send(sse_event(opening));
    }
    if (!choice.prompt->echo.empty()) {
      exchange.send(sse_event(format.chunk({choice.index, choice.prompt->echo, {}, {}})));
    }
  }
  const bool finished = !choice.finish_reason.empty();
  ChoiceDelta delta;
  // Tokens without text wait for the text that they are a part of.
  if (finished || choice.text.has_text()) delta = choice.text.take();
  if (!delta.text.empty()) {
    exchange.send(sse_event(format.chunk({choice.index, delta.text, delta.tokens, {}})));
    delta.tokens.clear();
  }
  if (finished)
    exchange.send(sse_event(format.chunk({choice.index, {}, delta.tokens, choice.finish_reason})));
}

void GenerationJob::finish(Choice& choice, std::string_view reason) {
  choice.finish_reason = reason;
  --unfinished_;
}

void GenerationJob::complete(Exchange& exchange) {
  over_ = true;
  Usage usage;
  for (const PreparedPrompt& prompt : request_->prompts) usage.prompt_tokens += prompt.tokens.size();
  for (const Choice& choice : choices_) usage.completion_tokens += choice.text.token_count();
  if (request_->stream) {
    if (request_->include_usage) exchange.send(sse_event(request_->format->usage_chunk(usage)));
    exchange.send(kSseDone);
    exchange.end_stream(false);
    return;
  }
  std::vector<ChoicePart> parts;
  parts.reserve(choices_.size());
  for (Choice& choice : choices_) {
    if (!choice.prompt->echo.empty()) choice.whole.text.insert(0, choice.prompt->echo);
    parts.push_back({choice.index, choice.whole.text, choice.whole.tokens, choice.finish_reason});
  }
  HttpResponse response;
  response.headers.emplace_back("X-Request-Id", request_->id);
  response.body = request_->format->whole(parts, usage);
  exchange.respond(std::move(response));
}

void GenerationJob::fail(const ApiError& error) {
  if (over_) return;
  over_ = true;
  end_all();
  const auto exchange = exchange_.lock();
  if (!exchange) return;
  if (streaming_) {
    exchange->send(sse_event(error_json(error)));
    exchange->end_stream(true);
  } else {
    exchange->respond(error_response(error));
  }
}

void GenerationJob::abandon() {
  over_ = true;
  end_all();
}

void GenerationJob::end_choice(Choice& choice, bool cancel) {
  choice.running = false;
  if (choice.queue) choice.queue->close();
  if (cancel) services_.generator->cancel(choice.id);
}

void GenerationJob::end_all() {
  for (Choice& choice : choices_) {
    if (choice.running) end_choice(choice, true);
  }
}

}  // namespace switchyard::gateway
