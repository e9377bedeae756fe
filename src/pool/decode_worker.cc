// The decode role: has prompts computed by a prefill instance, or computes them itself (unified), and then
// generates a token per step for every running request.
//
// Blocks are taken as a request grows. When none is left the youngest request gives up its place and is
// replayed by the router; its tokens are the same then, because a row's numbers depend on the row alone.
#include <algorithm>
#include <cmath>
#include <map>

#include "base/log.h"
#include "pool/worker.h"

namespace switchyard::pool {
namespace {

class DecodeWorker final : public Worker {
 public:
  using Worker::Worker;

 private:
  struct Request {
    enum class State {
      waiting,     // holds nothing
      receiving,   // a prefill instance writes into its blocks
      prefilling,  // its prompt is computed here
      running,
      draining,  // ended, but a prefill instance may still write into its blocks
    };
    State state = State::waiting;
    PeerAddress router;
    PeerAddress prefill;
    bool remote = false;
    Generate generate;
    std::vector<std::int32_t> history;  // prompt and output
    std::vector<std::uint32_t> blocks;
    std::uint32_t computed = 0;  // prefilling
    Counter counter;
    std::uint32_t tail = 0;
    bool has_tail = false;
    Error drain_reason{};  // what the router hears when drained; cancelled: nothing

    std::span<const std::int32_t> prompt() const { return std::span(history).first(generate.prompt.size()); }
    std::span<const std::int32_t> output() const {
      return std::span(history).subspan(generate.prompt.size());
    }
  };
  using Requests = std::map<std::uint64_t, Request>;  // by order of arrival

  void on_message(const PeerAddress& from, MessageType type, std::span<const std::byte> payload) override;
  void on_peer_lost(const PeerAddress& peer) override;
  bool work() override;
  void add_stats(Stats& stats) const override;

  void accept(const PeerAddress& from, Generate generate);
  void cancel(Requests::iterator request);
  void admit_waiting();
  Status begin_receiving(std::uint64_t serial, Request& request, std::uint32_t blocks);
  void received(std::uint64_t serial, const Status& status);
  void prefill_ended(const PeerAddress& from, const PrefillEnded& ended);
  // Has the prefill instance stop; the blocks come back when it has.
  void drain(Requests::iterator request, Error reason);
  void drained(Requests::iterator request);

  void compute_step();
  bool make_room();
  void take_token(Requests::iterator request, std::span<float> logits);
  void end(Requests::iterator request, Outcome outcome, Error error = {});
  void release(Request& request);
  TokenBatch::Entry& entry_for(const Request& request);
  bool send_batches();  // true: some could not be sent yet

  Requests requests_;
  std::uint64_t next_serial_ = 1;
  std::map<PeerKey, std::pair<PeerAddress, TokenBatch>> batches_;
  std::vector<float> logits_;
  std::uint64_t output_tokens_ = 0;
  std::uint64_t prompt_tokens_ = 0;
  std::uint64_t preemptions_ = 0;
  std::uint64_t retries_ = 0;
};

void DecodeWorker::on_message(const PeerAddress& from, MessageType type, std::span<const std::byte> payload) {
  if (type == MessageType::generate) {
    auto generate = parse<Generate>(payload);
    if (!generate) return log::error("{}", generate.error().message);
    accept(from, *std::move(generate));
  } else if (type == MessageType::cancel) {
    const auto message = parse<Cancel>(payload);
    if (!message) return log::error("{}", message.error().message);
    for (auto request = requests_.begin(); request != requests_.end();) {
      const auto next = std::next(request);
      if (request->second.generate.id == message->id && key_of(request->second.router) == key_of(from)) {
        cancel(request);
      }
      request = next;
    }
  } else if (type == MessageType::prefill_ended) {
    const auto ended = parse<PrefillEnded>(payload);
    if (!ended) return log::error("{}", ended.error().message);
    prefill_ended(from, *ended);
  } else {
    log::error("a decode instance got a message of type {}", static_cast<int>(type));
  }
}

void DecodeWorker::accept(const PeerAddress& from, Generate generate) {
  Request request;
  request.router = from;
  request.history = generate.prompt;
  request.history.insert(request.history.end(), generate.output.begin(), generate.output.end());
  request.remote = !generate.prefill.empty();
  std::string problem;
  if (request.remote) {
    auto prefill = PeerAddress::parse(generate.prefill);
    if (prefill) {
      request.prefill = *std::move(prefill);
    } else {
      problem = prefill.error().message;
    }
  }
  const auto vocab = static_cast<std::int32_t>(parts_.runtime.config().vocab);
  if (generate.prompt.empty() || generate.max_tokens <= generate.output.size() ||
      generate.prompt.size() + generate.max_tokens > parts_.store.context()) {
    problem = fmt::format("{} prompt and {} output tokens do not fit this instance's context of {}",
                          generate.prompt.size(), generate.max_tokens, parts_.store.context());
  }
  for (const std::int32_t token : request.history) {
    if (token < 0 || token >= vocab)
      problem = fmt::format("token {} is outside of the vocabulary of {}", token, vocab);
  }
  if (const auto valid = model::validate(generate.sampling, parts_.runtime.config().vocab); !valid) {
    problem = valid.error().message;
  }
  request.generate = std::move(generate);
  const auto [entry, inserted] = requests_.emplace(next_serial_++, std::move(request));
  if (!problem.empty()) end(entry, Outcome::failed, {ErrorCode::invalid, problem});
}

void DecodeWorker::cancel(Requests::iterator entry) {
  switch (entry->second.state) {
    case Request::State::receiving:
      return drain(entry, {ErrorCode::cancelled, ""});
    case Request::State::draining:
      entry->second.drain_reason = {ErrorCode::cancelled, ""};
      return;
    default:
      break;
  }
  release(entry->second);
  requests_.erase(entry);
}

void DecodeWorker::on_peer_lost(const PeerAddress& peer) {
  for (auto entry = requests_.begin(); entry != requests_.end();) {
    const auto next = std::next(entry);
    Request& request = entry->second;
    const bool receiving = request.state == Request::State::receiving;
    if (key_of(request.router) == key_of(peer)) {
      cancel(entry);
    } else if (request.remote && key_of(request.prefill) == key_of(peer) &&
               (receiving || request.state == Request::State::draining)) {
      // The engine has closed the peer's epoch: nothing of it lands any more.
      if (receiving) request.drain_reason = {ErrorCode::peer_lost, "the prefill instance has ended"};
      drained(entry);
    }
    entry = next;
  }
  batches_.erase(key_of(peer));
}

void DecodeWorker::admit_waiting() {
  const auto held =
      static_cast<std::uint32_t>(std::count_if(requests_.begin(), requests_.end(), [](const auto& entry) {
        return entry.second.state != Request::State::waiting;
      }));
  std::uint32_t slots = parts_.max_sequences > held ? parts_.max_sequences - held : 0;
  std::uint32_t growing = held;  // each may want one more block soon
  for (auto entry = requests_.begin(); entry != requests_.end() && slots > 0;) {
    const auto next = std::next(entry);
    Request& request = entry->second;
    if (request.state == Request::State::waiting) {
      const auto blocks = model::KvLayout::blocks_for(static_cast<std::uint32_t>(request.history.size()));
      BlockPool& pool = parts_.store.blocks();
      if (pool.available() < blocks + growing && pool.used() != 0) return;  // first come, first served
      if (request.remote) {
        const Status begun = begin_receiving(entry->first, request, blocks);
        if (!begun) {
          if (begun.error().code == ErrorCode::exhausted && pool.used() != 0) return;
          end(entry, Outcome::retry, begun.error());
        }
      } else {
        (void)pool.take(blocks, request.blocks);
        request.state = Request::State::prefilling;
      }
      --slots;
      ++growing;
    }
    entry = next;
  }
}

Status DecodeWorker::begin_receiving(std::uint64_t serial, Request& request, std::uint32_t blocks) {
  const auto tail = parts_.store.take_tail();
  if (!tail) return fail(ErrorCode::exhausted, "all tail slots are in use");
  request.tail = *tail;
  request.has_tail = true;
  auto counter = parts_.engine.make_counter();
  if (!counter) {
    release(request);
    return pass(counter.error());
  }
  request.counter = *std::move(counter);
  (void)parts_.store.blocks().take(blocks, request.blocks);

  const auto tokens = static_cast<std::uint32_t>(request.history.size());
  const Status armed = request.counter.expect(
      kv::transfer_count(parts_.store.shape(), tokens, parts_.chunk_tokens),
      monotonic_now() + parts_.prefill_limit,
      [this, serial](const Status& status) { post([this, serial, status] { received(serial, status); }); });
  const PrefillOrder order{
      .job = serial,
      .tokens = request.history,
      .destination = {.pool = parts_.store.pool_region().key(),
                      .blocks = request.blocks,
                      .tails = parts_.store.tail_region().key(),
                      .tail_offset = parts_.store.tail_offset(request.tail),
                      .counter = request.counter.id(),
                      .tokens = tokens,
                      .chunk_tokens = parts_.chunk_tokens},
      .limit_ms = static_cast<std::uint32_t>(
          std::chrono::duration_cast<std::chrono::milliseconds>(parts_.prefill_limit).count())};
  const Status sent = armed ? send(request.prefill, order) : armed;
  if (!sent) {
    release(request);
    return sent;
  }
  request.state = Request::State::receiving;
  return {};
}

void DecodeWorker::received(std::uint64_t serial, const Status& status) {
  const auto entry = requests_.find(serial);
  if (entry == requests_.end()) return;
  Request& request = entry->second;
  if (!status) {
    // Withdrawn by drain(), or too late; then the writer must stop before the blocks are anybody's.
    if (request.state == Request::State::receiving) drain(entry, status.error());
    return;
  }
  if (request.state == Request::State::draining) return drained(entry);
  if (request.state != Request::State::receiving) return;
  request.counter = {};
  request.state = Request::State::running;
  const std::uint32_t tail = request.tail;
  take_token(entry, parts_.store.tail(tail));
  if (const auto still = requests_.find(serial); still != requests_.end() && still->second.has_tail) {
    parts_.store.give_back_tail(tail);
    still->second.has_tail = false;
  }
}

void DecodeWorker::prefill_ended(const PeerAddress& from, const PrefillEnded& ended) {
  const auto entry = requests_.find(ended.job);
  if (entry == requests_.end() || !entry->second.remote || key_of(entry->second.prefill) != key_of(from))
    return;
  Request& request = entry->second;
  if (request.state == Request::State::receiving) {
    request.drain_reason = ended.why;
    drained(entry);
  } else if (request.state == Request::State::draining) {
    drained(entry);
  }
}

void DecodeWorker::drain(Requests::iterator entry, Error reason) {
  Request& request = entry->second;
  request.state = Request::State::draining;
  request.drain_reason = std::move(reason);
  const Status sent = send(request.prefill, CancelPrefill{entry->first});
  if (!sent && sent.error().code != ErrorCode::peer_lost) log::error("{}", sent.error().message);
}

void DecodeWorker::drained(Requests::iterator entry) {
  const Error reason = entry->second.drain_reason;
  if (reason.code != ErrorCode::cancelled) return end(entry, Outcome::retry, reason);
  release(entry->second);
  requests_.erase(entry);
}

bool DecodeWorker::work() {
  admit_waiting();
  compute_step();
  const bool unsent = send_batches();
  return unsent || std::any_of(requests_.begin(), requests_.end(), [](const auto& entry) {
           return entry.second.state == Request::State::running ||
                  entry.second.state == Request::State::prefilling;
         });
}

bool DecodeWorker::make_room() {
  for (auto entry = requests_.rbegin(); entry != requests_.rend(); ++entry) {
    const auto state = entry->second.state;
    if (state == Request::State::running || state == Request::State::prefilling) {
      ++preemptions_;
      end(std::prev(entry.base()), Outcome::retry, {ErrorCode::exhausted, "its KV blocks were needed"});
      return true;
    }
  }
  return false;
}

void DecodeWorker::compute_step() {
  // Every running request needs a block for the token that it feeds.
  for (auto entry = requests_.begin(); entry != requests_.end();) {
    const std::uint64_t serial = entry->first;
    Request& request = entry->second;
    const auto needed = model::KvLayout::blocks_for(static_cast<std::uint32_t>(request.history.size()));
    if (request.state == Request::State::running && request.blocks.size() < needed &&
        !parts_.store.blocks().take(1, request.blocks)) {
      make_room();  // maybe this very request
      entry = requests_.lower_bound(serial);
      continue;
    }
    ++entry;
  }

  std::vector<std::uint64_t> rows;  // requests whose logits are computed, in order
  std::vector<model::Chunk> chunks;
  std::uint32_t room = parts_.max_step_tokens;
  for (auto& [serial, request] : requests_) {
    if (request.state != Request::State::running || rows.size() == parts_.max_sequences || room == 0)
      continue;
    chunks.push_back({.tokens = std::span(request.history).last(1),
                      .position = static_cast<std::uint32_t>(request.history.size() - 1),
                      .blocks = request.blocks,
                      .logits = true});
    rows.push_back(serial);
    --room;
  }
  // Beside decode rows a step takes one chunk of prompts, so that running requests do not wait long.
  if (!rows.empty()) room = std::min(room, parts_.chunk_tokens);
  std::vector<std::pair<Request*, std::uint32_t>> prefilled;
  for (auto& [serial, request] : requests_) {
    if (request.state != Request::State::prefilling) continue;
    const auto left = static_cast<std::uint32_t>(request.history.size()) - request.computed;
    const std::uint32_t count = std::min({left, parts_.chunk_tokens, room});
    if (count == 0 || rows.size() == parts_.max_sequences) break;
    chunks.push_back({.tokens = std::span(request.history).subspan(request.computed, count),
                      .position = request.computed,
                      .blocks = request.blocks,
                      .logits = count == left});
    if (count == left) rows.push_back(serial);
    prefilled.emplace_back(&request, count);
    room -= count;
  }
  if (chunks.empty()) return;

  const std::size_t vocab = parts_.runtime.config().vocab;
  logits_.resize(std::max(logits_.size(), rows.size() * vocab));
  const std::span<float> logits = std::span(logits_).first(rows.size() * vocab);
  const Status status = step(chunks, logits, {});
  if (!status) {
    log::error("a decode step failed: {}", status.error().message);
    for (auto entry = requests_.begin(); entry != requests_.end();) {
      const auto next = std::next(entry);
      const auto state = entry->second.state;
      if (state == Request::State::running || state == Request::State::prefilling) {
        end(entry, Outcome::failed, status.error());
      }
      entry = next;
    }
    return;
  }
  for (const auto& [request, count] : prefilled) {
    request->computed += count;
    prompt_tokens_ += count;
    if (request->computed == request->history.size()) request->state = Request::State::running;
  }
  for (std::size_t row = 0; row < rows.size(); ++row) {
    take_token(requests_.find(rows[row]), logits.subspan(row * vocab, vocab));
  }
}

void DecodeWorker::take_token(Requests::iterator entry, std::span<float> logits) {
  Request& request = entry->second;
  if (std::none_of(logits.begin(), logits.end(), [](float logit) { return std::isfinite(logit); })) {
    return end(entry, Outcome::failed,
               {ErrorCode::corrupt, "the model gave no finite logits; is its checkpoint damaged?"});
  }
  model::SampledToken sampled =
      model::sample(logits, request.generate.sampling, request.prompt(), request.output());
  const auto& ends = request.generate.end_tokens;
  if (std::find(ends.begin(), ends.end(), sampled.token) != ends.end()) return end(entry, Outcome::end_token);
  request.history.push_back(sampled.token);
  ++output_tokens_;
  entry_for(request).tokens.push_back(std::move(sampled));
  if (request.output().size() >= request.generate.max_tokens) end(entry, Outcome::length);
}

TokenBatch::Entry& DecodeWorker::entry_for(const Request& request) {
  auto& [address, batch] = batches_[key_of(request.router)];
  address = request.router;
  for (TokenBatch::Entry& entry : batch.entries) {
    if (entry.id == request.generate.id && entry.attempt == request.generate.attempt) return entry;
  }
  batch.entries.push_back({.id = request.generate.id, .attempt = request.generate.attempt});
  return batch.entries.back();
}

void DecodeWorker::end(Requests::iterator entry, Outcome outcome, Error error) {
  TokenBatch::Entry& last = entry_for(entry->second);
  last.outcome = outcome;
  last.error = std::move(error);
  retries_ += outcome == Outcome::retry ? 1 : 0;
  release(entry->second);
  requests_.erase(entry);
}

void DecodeWorker::release(Request& request) {
  parts_.store.blocks().give_back(request.blocks);
  request.blocks.clear();
  if (request.has_tail) parts_.store.give_back_tail(request.tail);
  request.has_tail = false;
  request.counter = {};
}

bool DecodeWorker::send_batches() {
  bool unsent = false;
  for (auto& [key, pair] : batches_) {
    auto& [router, batch] = pair;
    if (batch.entries.empty()) continue;
    // A full channel keeps the tokens here; they go with the next step's.
    const Status sent = send(router, batch);
    if (sent || sent.error().code != ErrorCode::exhausted) batch.entries.clear();
    unsent = unsent || !batch.entries.empty();
  }
  return unsent;
}

void DecodeWorker::add_stats(Stats& stats) const {
  std::size_t waiting = 0;
  std::size_t receiving = 0;
  std::size_t running = 0;
  for (const auto& [serial, request] : requests_) {
    switch (request.state) {
      case Request::State::waiting:
        ++waiting;
        break;
      case Request::State::receiving:
      case Request::State::draining:
        ++receiving;
        break;
      default:
        ++running;
    }
  }
  const auto gauge = [&stats](const char* name, const char* help, std::size_t value) {
    stats.samples.push_back({name, help, false, static_cast<double>(value)});
  };
  const auto counter = [&stats](const char* name, const char* help, std::uint64_t value) {
    stats.samples.push_back({name, help, true, static_cast<double>(value)});
  };
  gauge("requests_waiting", "Requests without KV blocks yet", waiting);
  gauge("requests_receiving", "Requests whose KV a prefill instance writes", receiving);
  gauge("requests_running", "Requests that hold KV blocks", running);
  counter("output_tokens_total", "Tokens generated", output_tokens_);
  counter("prompt_tokens_total", "Prompt tokens computed", prompt_tokens_);
  counter("preemptions_total", "Requests that gave up their blocks", preemptions_);
  counter("retries_total", "Requests given back to be placed again", retries_);
}

}  // namespace

std::unique_ptr<Worker> make_decode_worker(const WorkerParts& parts) {
  return std::make_unique<DecodeWorker>(parts);
}

}  // namespace switchyard::pool
