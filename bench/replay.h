// Replays a workload against a running server, open loop: every request is sent at its time, whatever became
// of those before it.
//
// Prompts are token ids of the length that the workload asks for, of a token alphabet that every vocabulary
// has; answers are streamed, and end tokens ignored. On the caller's thread, with as many connections as
// there are open requests; memory is eight bytes per token.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "http_exchange.h"
#include "simulate/workload.h"

namespace switchyard::bench {

struct ServedModel {
  std::string id;
  std::uint32_t max_tokens = 0;  // of prompt and output; 0: not known
};

// The models that /v1/models lists. Errors: corrupt.
Result<std::vector<ServedModel>> parse_models(std::string_view body);

struct FitOptions {
  double speed = 1;              // so many times as fast
  double seconds = 0;            // of the replay; later requests are left out. 0: all
  std::uint32_t max_tokens = 0;  // cap on tokens to make; 0: none
  std::uint32_t max_prompt = 0;  // cap on prompt tokens; 0: none
};

struct FittedWorkload {
  simulate::Workload workload;  // its models are ids of the server
  std::size_t shortened = 0;    // requests that were cut to the cap or to the model's context
};

// A workload as a server can be asked it: names become ids, the same name where there is one, else ids in
// turn. Errors: invalid (no request is left, no models).
Result<FittedWorkload> fit(const simulate::Workload& workload, std::span<const ServedModel> models,
                           const FitOptions& options);

enum class ReplayEnd {
  unsent,  // it was not its turn yet when the replay was interrupted
  open,    // interrupted
  ended,   // all its tokens came
  shed,    // 429, and what `static` has no place for
  failed,  // anything else, and what was not done when the time was up
};
std::string_view to_string(ReplayEnd end);

struct ReplayRecord {
  ReplayEnd end = ReplayEnd::unsent;
  Nanos sent{};  // all since the replay's beginning
  Nanos over{};
  std::vector<Nanos> tokens;
  int status = 0;  // of HTTP; 0: no answer
  double retry_after = 0;
  std::string error;
};

struct ReplayProgress {
  double seconds = 0;
  std::size_t sent = 0, open = 0, ended = 0, shed = 0, failed = 0, all = 0;
};

struct ReplayOptions {
  ServerAddress server;
  std::string api_key;
  Nanos drain = std::chrono::seconds(120);  // after the last request was sent; what is open then has failed
  Nanos silence_limit = std::chrono::seconds(120);
  std::uint64_t seed = 1;                               // of prompts
  std::function<bool()> stop;                           // asked every 20 ms; true interrupts
  std::function<void(const ReplayProgress&)> progress;  // every five seconds
};

struct Replay {
  std::vector<ReplayRecord> records;  // as the workload's requests
  TimePoint begin{};
  double seconds = 0;
  bool interrupted = false;
};

// Errors: not_found (no such host). A server that does not answer shows in the records.
Result<Replay> replay(const simulate::Workload& workload, const ReplayOptions& options);

// The body of POST /v1/completions.
std::string completion_body(const simulate::WorkloadRequest& request, const std::string& model,
                            std::uint64_t seed);

}  // namespace switchyard::bench
