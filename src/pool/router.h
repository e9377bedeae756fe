// Places requests on instances, and keeps what is needed to place them again.
//
// A request's prompt and tokens stay here until it ends. When an instance dies, or gives a request back, the
// router submits it elsewhere with its tokens so far; sampling depends on seed and position only, so the text
// goes on as if nothing had happened. Requests that no instance can take wait, in order.
//
// Any thread may call. Sinks are called with the router's lock held: they must not block, nor call the
// router.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "pool/channel.h"
#include "pool/generator.h"
#include "pool/messages.h"

namespace switchyard::pool {

class Router final : public Generator {
 public:
  struct Options {
    std::vector<ServedModel> models;  // one, for now
    std::size_t max_queue = 1024;
  };
  // Called when an instance is gone, or has to go because others cannot reach it; not with the lock held.
  using InstanceLost = std::function<void(const std::string& name, int process, const std::string& why)>;

  Router(Options options, InstanceLost instance_lost);

  // Takes the engine's messages from now on. Call once.
  void attach(std::shared_ptr<Channel> channel);
  void on_message(const PeerAddress& from, std::uint8_t type, std::span<const std::byte> payload);
  void on_peer_lost(const PeerAddress& peer, const Error& why);

  // What the supervisor knows of an instance: "starting", "restarting", "failed". `ready` comes with its
  // Hello.
  void instance_changed(const std::string& name, Role role, const std::string& state,
                        const std::string& detail, int process, std::uint64_t restarts);

  // Errors: timed_out, saying which instances are not ready and why; io when one has died so often before it
  // was ready that waiting is vain.
  Status wait_ready(TimePoint deadline) const;

  // Ends every request with `why`; later submissions are refused with it.
  void shut_down(const Error& why);

  Result<RequestId> submit(GenerationRequest request, std::shared_ptr<GenerationSink> sink) override;
  void cancel(RequestId id) override;
  const std::vector<ServedModel>& models() const override { return options_.models; }
  std::vector<InstanceStatus> instances() const override;
  std::vector<prometheus::MetricFamily> metrics() const override;

 private:
  // Replays without a new token after which a request is given up.
  static constexpr std::uint32_t kMaxFailures = 16;
  // Decode instances that died with a request after which it is taken to be the cause.
  static constexpr std::uint32_t kMaxDeaths = 8;
  static constexpr std::uint64_t kHopeless = 3;  // deaths before the first Hello

  struct Instance {
    InstanceStatus status;
    Role role = Role::unified;
    bool ready = false;
    PeerAddress address;
    std::size_t load = 0;  // requests placed on it
    Stats stats;
  };

  struct Request {
    GenerationRequest wanted;
    std::shared_ptr<GenerationSink> sink;
    std::vector<std::int32_t> output;
    std::uint32_t attempt = 0;
    std::uint32_t failures = 0;  // since the last token
    std::uint32_t deaths = 0;    // of the decode instance that had it
    bool placed = false;
    std::string decode;      // instance names, while placed
    std::string prefill;     // empty: unified
    PeerKey prefill_life{};  // which life of that instance: its name outlives it
  };
  using Requests = std::map<RequestId, Request>;

  Result<RequestId> enqueue(GenerationRequest request, std::shared_ptr<GenerationSink> sink);
  void said_hello(const PeerAddress& from, const Hello& hello);
  void took_tokens(const PeerAddress& from, const TokenBatch& batch);
  void place_waiting();
  bool place(RequestId id, Request& request);
  Instance* least_loaded(Role role);
  Instance* find(const PeerAddress& address);
  void unplace(Request& request);
  // Puts a request back into the queue, at its front.
  void retry(Requests::iterator request, const Error& why);
  void end(Requests::iterator request, FinishReason reason, Error error = {});
  // The instance takes no more requests until it says Hello again; the supervisor is to replace it.
  void mark_lost(Instance& instance, const std::string& why);
  // Puts the requests that this decode instance had back into the queue.
  void strand(const std::string& instance, const std::string& why);
  void notify_lost();  // without the lock

  const Options options_;
  const InstanceLost instance_lost_;
  std::shared_ptr<Channel> channel_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool down_ = false;
  Error down_reason_{};
  std::map<std::string, Instance> instances_;
  Requests requests_;
  std::deque<RequestId> waiting_;
  RequestId next_id_ = 1;
  struct Lost {
    std::string name;
    int process;
    std::string why;
  };
  std::vector<Lost> lost_;  // to be told to instance_lost_
  std::uint64_t replays_ = 0;
  std::uint64_t submitted_ = 0;
  std::uint64_t rejected_ = 0;
  std::uint64_t failed_ = 0;
};

}  // namespace switchyard::pool
