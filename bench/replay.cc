#include "replay.h"

#include <boost/asio/steady_timer.hpp>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "event_stream.h"
#include "simulate/random.h"

namespace switchyard::bench {
namespace {

namespace asio = boost::asio;

constexpr Nanos kStopPoll = std::chrono::milliseconds(20);
constexpr Nanos kProgressInterval = std::chrono::seconds(5);
constexpr std::size_t kMaxErrorBody = 4096;

// Token ids that are ordinary characters in the usual byte-level vocabularies, and never special tokens.
constexpr std::uint32_t kFirstToken = 34;
constexpr std::uint32_t kTokens = 60;

class Replayer {
 public:
  Replayer(const simulate::Workload& workload, const ReplayOptions& options, Endpoints endpoints)
      : workload_(workload), options_(options), endpoints_(std::move(endpoints)) {
    replay_.records.resize(workload.requests.size());
  }

  Replay run() {
    replay_.begin = monotonic_now();
    send_due();
    watch();
    context_.run();
    replay_.seconds = to_seconds(now());
    return std::move(replay_);
  }

 private:
  struct Stream {
    std::shared_ptr<HttpExchange> exchange;
    EventStream events;
    TokenTimes tokens;
    std::string error_body;
    std::string broken;  // what is wrong with the events
  };

  Nanos now() const { return monotonic_now() - replay_.begin; }

  void send_due() {
    while (next_ < workload_.requests.size() && workload_.requests[next_].time <= now()) send(next_++);
    if (next_ == workload_.requests.size()) {
      drain_until_ = now() + options_.drain;
      return;
    }
    timer_.expires_at(replay_.begin + workload_.requests[next_].time);
    timer_.async_wait([this](boost::system::error_code error) {
      if (!error) send_due();
    });
  }

  void send(std::size_t index) {
    const simulate::WorkloadRequest& request = workload_.requests[index];
    replay_.records[index].end = ReplayEnd::open;
    replay_.records[index].sent = now();
    const auto [stream, added] = streams_.emplace(index, Stream{.tokens = TokenTimes(request.output_tokens)});
    HttpCall call{
        .method = "POST",
        .target = "/v1/completions",
        .host = options_.server.host,
        .api_key = options_.api_key,
        .body = completion_body(request, workload_.models[request.model], options_.seed * 1'000'003 + index),
        .silence_limit = options_.silence_limit};
    stream->second.exchange =
        HttpExchange::start(context_, endpoints_, std::move(call),
                            {.body = [this, index](std::string_view bytes) { take(index, bytes); },
                             .ended = [this, index](HttpAnswer answer) { end(index, std::move(answer)); }});
  }

  void take(std::size_t index, std::string_view bytes) {
    Stream& stream = streams_.at(index);
    const Nanos time = now();
    // An error comes as plain JSON, not as an event; which of both it is shows at the end.
    stream.error_body.append(
        bytes.substr(0, kMaxErrorBody - std::min(kMaxErrorBody, stream.error_body.size())));
    if (!stream.broken.empty()) return;
    const Status fed =
        stream.events.feed(bytes, [&](std::string_view data) { stream.tokens.take(data, time); });
    if (!fed) {
      stream.broken = fed.error().message;
      stream.exchange->cancel();
    }
  }

  void end(std::size_t index, HttpAnswer answer) {
    const auto found = streams_.find(index);
    Stream& stream = found->second;
    ReplayRecord& record = replay_.records[index];
    record.over = now();
    record.status = answer.status;
    record.retry_after = answer.retry_after;
    const bool finished = stream.tokens.finished() && stream.tokens.error().empty();
    if (answer.status == 429 || error_code(stream.error_body) == "no_place") {
      record.end = ReplayEnd::shed;
      record.error = error_message(stream.error_body);
    } else if (answer.status != 0 && answer.status != 200) {
      record.end = ReplayEnd::failed;
      record.error = fmt::format("status {}: {}", answer.status, error_message(stream.error_body));
    } else if (finished && stream.broken.empty()) {
      // Complete, even if the connection then broke.
      record.end = ReplayEnd::ended;
    } else if (replay_.interrupted) {
      record.end = ReplayEnd::open;
    } else {
      record.end = ReplayEnd::failed;
      record.error = !stream.broken.empty()           ? stream.broken
                     : !stream.tokens.error().empty() ? stream.tokens.error()
                     : out_of_time_                   ? "not done when the time was up"
                     : !answer.end                    ? answer.end.error().message
                                                      : "the stream ended without its end";
    }
    record.tokens = stream.tokens.release();
    ++(record.end == ReplayEnd::ended  ? counts_.ended
       : record.end == ReplayEnd::shed ? counts_.shed
                                       : counts_.failed);
    streams_.erase(found);
    if (next_ == workload_.requests.size() && streams_.empty()) watch_timer_.cancel();
  }

  // Looks after interruption, the end of the time, and progress.
  void watch() {
    if (next_ == workload_.requests.size() && streams_.empty()) return;
    if (options_.stop && options_.stop()) {
      replay_.interrupted = true;
      next_ = workload_.requests.size();
      call_off();
      return;
    }
    if (next_ == workload_.requests.size() && now() > drain_until_) {
      out_of_time_ = true;
      call_off();
      return;
    }
    if (options_.progress && now() >= next_progress_) {
      next_progress_ = now() + kProgressInterval;
      counts_.seconds = to_seconds(now());
      counts_.sent = next_;
      counts_.open = streams_.size();
      counts_.all = workload_.requests.size();
      options_.progress(counts_);
    }
    watch_timer_.expires_after(kStopPoll);
    watch_timer_.async_wait([this](boost::system::error_code error) {
      if (!error) watch();
    });
  }

  void call_off() {
    timer_.cancel();
    for (auto& [index, stream] : streams_) stream.exchange->cancel();
  }

  asio::io_context context_{1};  // outlives what waits in it
  const simulate::Workload& workload_;
  const ReplayOptions& options_;
  const Endpoints endpoints_;
  Replay replay_;
  ReplayProgress counts_;
  std::size_t next_ = 0;
  Nanos drain_until_ = Nanos::max();
  Nanos next_progress_ = kProgressInterval;
  bool out_of_time_ = false;
  std::unordered_map<std::size_t, Stream> streams_;
  asio::steady_timer timer_{context_};
  asio::steady_timer watch_timer_{context_};
};

}  // namespace

std::string_view to_string(ReplayEnd end) {
  switch (end) {
    case ReplayEnd::unsent:
      return "unsent";
    case ReplayEnd::open:
      return "open";
    case ReplayEnd::ended:
      return "ended";
    case ReplayEnd::shed:
      return "shed";
    case ReplayEnd::failed:
      return "failed";
  }
  return "";
}

std::string completion_body(const simulate::WorkloadRequest& request, const std::string& model,
                            std::uint64_t seed) {
  simulate::Random random(seed);
  std::string body =
      fmt::format(R"({{"model":{},"stream":true,"temperature":0,"ignore_eos":true,"return_token_ids":true,)"
                  R"("max_tokens":{},"prompt":[)",
                  nlohmann::json(model).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace),
                  request.output_tokens);
  // No two prompts begin alike, so that no KV of one serves another.
  for (std::uint32_t i = 0; i < request.input_tokens; ++i) {
    fmt::format_to(std::back_inserter(body), "{}{}", i == 0 ? "" : ",", kFirstToken + random.below(kTokens));
  }
  return body + "]}";
}

Result<Replay> replay(const simulate::Workload& workload, const ReplayOptions& options) {
  auto endpoints = resolve(options.server);
  if (!endpoints) return pass(endpoints.error());
  return Replayer(workload, options, *std::move(endpoints)).run();
}

}  // namespace switchyard::bench
