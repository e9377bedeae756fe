// The requests that an instance knows, the blocks that they hold and want, and how they end.
//
// Wants are served strictly in the order in which they came: the dispatcher promises that what is held fits,
// so that whatever is missing now is about to be given back. A request that ends gives its blocks back when
// nothing reads or writes them any more, and only then is the dispatcher told.
//
// Owned by the worker; used on its loop alone.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "pool/held_request.h"
#include "pool/instance_memory.h"
#include "pool/outbox.h"
#include "pool/prompt_cache.h"

namespace switchyard::pool {

class Requests final : public InstanceMemory::Users {
 public:
  using Post = std::function<void(std::function<void()>)>;
  Requests(InstanceMemory& memory, Outbox& outbox, Post post)
      : memory_(memory), outbox_(outbox), post_(std::move(post)), prompts_(memory) {}

  void introduce(Introduce order);
  HeldRequest* find(const Ticket& ticket);
  HeldRequest* find(std::uint64_t serial);
  // Null: it is unknown, and the dispatcher has been told that it is lost.
  HeldRequest* find_or_tell(const Ticket& ticket);
  template <class F>
  void for_each(F&& call) {
    for (auto& [serial, request] : held_) call(*request);
  }

  // Takes blocks as soon as there are any, and calls `then`; after `until` the request is lost.
  void want(HeldRequest& request, std::uint32_t count, TimePoint until, std::function<void()> then);
  void serve_wants(TimePoint now);
  // When to call serve_wants() at the latest.
  TimePoint next_deadline() const;
  // One more block, now or not. False: there is none.
  bool grow(HeldRequest& request);

  // Takes blocks of earlier prompts that begin like this one; the tokens that they hold.
  std::uint32_t reuse(HeldRequest& request);
  // Its first request.kv_tokens tokens are computed: prompts to come may use them.
  void keep(const HeldRequest& request);
  void forget_prompts(ModelId model) { prompts_.forget(model); }

  // Its KV is here: carries out what was waiting for that.
  void make_ready(HeldRequest& request);
  // Carries `order` out when the request's KV is here and no job has it, now if it is. What cannot become so
  // is lost.
  void when_ready(HeldRequest& request, std::function<void(HeldRequest&)> order);

  // The ways to end. The request may be gone when they return.
  void lose(HeldRequest& request, Error why);
  void end_silently(HeldRequest& request);
  void release(const Release& order);

  // News of what reads or writes a request's blocks.
  void push_gone(HeldRequest& request);
  void copy_done(HeldRequest& request);
  void writer_gone(const PeerKey& writer, const Error& why);
  void settle(HeldRequest& request);  // forgets it if it drains and nothing moves any more

  // InstanceMemory::Users
  bool may_move(std::size_t block_bytes) const override;
  void moved(std::size_t block_bytes, const MovedBlocks& moved) override;
  bool give_up(std::size_t block_bytes) override;

  void add_stats(Stats& stats) const;

 private:
  static constexpr std::size_t kMaxHeld = 1 << 16;
  static constexpr std::size_t kMaxDeferred = 8;

  void end(HeldRequest& request, HeldRequest::Ending ending, Error why);
  void forget(HeldRequest& request);

  InstanceMemory& memory_;
  Outbox& outbox_;
  const Post post_;
  PromptCache prompts_;
  std::map<std::uint64_t, std::unique_ptr<HeldRequest>> held_;  // by serial
  std::map<Ticket, std::uint64_t> by_ticket_;
  std::deque<std::uint64_t> wanting_;
  std::uint64_t next_serial_ = 1;
  std::uint64_t lost_ = 0;
};

}  // namespace switchyard::pool
