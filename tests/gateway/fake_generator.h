// A Generator whose tokens a test decides. Its one thread stands for the pool's.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "pool/generator.h"

namespace switchyard::gateway::testing {

// What one request gets.
struct FakePlan {
  std::vector<std::int32_t> tokens;  // up to the first end token, or max_tokens
  // Stops after so many tokens and waits for release() or cancel().
  std::optional<std::size_t> hold_after;
  // Ends with this error after so many tokens.
  std::optional<std::size_t> fail_after;
  Error failure{ErrorCode::peer_lost, "decode-0 died"};
  // Repeats `tokens` for ever, to max_tokens.
  bool endless = false;
};

class FakeGenerator final : public pool::Generator {
 public:
  using Planner = std::function<FakePlan(const pool::GenerationRequest&)>;

  // By default a request gets what its prompt says after the last "say ", byte by byte; "seed" alone gets the
  // seed's digits; anything else "Hello world".
  explicit FakeGenerator(Planner planner = {});
  ~FakeGenerator() override;

  tl::expected<pool::RequestId, pool::Refusal> submit(pool::GenerationRequest request,
                                                      std::shared_ptr<pool::GenerationSink> sink) override;
  void cancel(pool::RequestId id) override;
  std::vector<pool::ServedModel> models() const override;
  std::uint64_t models_version() const override { return version_; }
  std::vector<pool::InstanceStatus> instances() const override;
  std::vector<prometheus::MetricFamily> metrics() const override;

  // Lets all held requests go on.
  void release();
  void refuse_with(std::optional<pool::Refusal> refusal);
  void set_state(std::string state);
  // Changes the list of models, and so their version. At first: "toy" and "org/other", both ready.
  void change_models(const std::function<void(std::vector<pool::ServedModel>&)>& change);
  // The model's state, with a reason and the time after which to try again.
  void set_model(const std::string& id, pool::ModelState state, std::string detail = {},
                 Nanos retry_after = {});

  std::size_t submitted() const { return submitted_; }
  std::size_t cancelled() const { return cancelled_; }
  std::size_t active() const { return active_; }
  std::uint64_t tokens_made() const { return tokens_made_; }
  std::vector<pool::GenerationRequest> requests() const;
  // Waits until the condition holds over the four numbers above; false after twenty seconds.
  bool wait_until(const std::function<bool(const FakeGenerator&)>& condition);

 private:
  struct Running {
    pool::GenerationRequest request;
    std::shared_ptr<pool::GenerationSink> sink;
    FakePlan plan;
    std::size_t made = 0;
    bool cancelled = false;
    bool released = false;
  };
  struct Event {
    std::optional<model::SampledToken> token;
    std::optional<pool::GenerationEnd> end;
  };

  void run();
  // What a request gets next; neither: it waits.
  static Event next_event(const Running& running);

  std::vector<pool::ServedModel> models_;
  Planner planner_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable changed_;
  std::map<pool::RequestId, std::shared_ptr<Running>> running_;
  std::vector<pool::GenerationRequest> requests_;
  std::optional<pool::Refusal> refusal_;
  std::string state_ = "ready";
  pool::RequestId next_ = 1;
  std::atomic<std::size_t> submitted_{0}, cancelled_{0}, active_{0};
  std::atomic<std::uint64_t> tokens_made_{0};
  std::atomic<std::uint64_t> version_{1};
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace switchyard::gateway::testing
