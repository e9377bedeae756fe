// KV that comes and goes: from and to other instances as writes of the engine, from and to host memory as
// copies of the mover.
//
// Owned by the worker; used on its loop alone.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "memory/shared_memory.h"
#include "pool/instance_memory.h"
#include "pool/kv_mover.h"
#include "pool/outbox.h"
#include "pool/requests.h"

namespace switchyard::pool {

struct WorkerLimits;

class KvTraffic {
 public:
  KvTraffic(TransferEngine& engine, InstanceMemory& memory, Requests& requests, Outbox& outbox,
            const WorkerLimits& limits, Requests::Post post);

  void welcome(const Welcome& order);
  void expect(const Expect& order);
  void push(const PushKv& order);
  void move_out(const MoveOut& order);
  void move_in(const MoveIn& order);
  void peer_lost(const PeerAddress& peer, const Error& why);
  // Begins what waited for others to end.
  void work();

  // For prefill jobs, which send KV while they compute it. Each returns before anything is sent; the request
  // holds all the blocks that are meant. Errors: invalid, out_of_range, unsupported.
  Status begin_push(HeldRequest& request, const std::vector<std::byte>& peer, kv::Destination destination);
  Status begin_move_out(HeldRequest& request, const std::vector<BlockId>& host_blocks, std::size_t blocks);
  // The first `blocks` blocks are computed; for begin_move_out().
  void computed(HeldRequest& request, std::uint32_t blocks);
  // Everything is computed: the request is forgotten when it has gone.
  void leave(HeldRequest& request);
  bool may_push() const { return pushes_ < max_pushes_; }

  void add_stats(Stats& stats) const;

 private:
  Status check_host(const HeldRequest& request, const std::vector<BlockId>& blocks) const;
  void begin_expecting(HeldRequest& request, const PeerAddress& writer, std::uint32_t tokens,
                       TimePoint deadline);
  void arrived(std::uint64_t serial, std::uint32_t tokens, const Status& status);
  void watch(const PeerAddress& peer);
  void push_whole(HeldRequest& request, const PushKv& order);
  void push_over(std::uint64_t serial, const Status& status, const kv::PushReport& report);
  void copy(HeldRequest& request, bool out, std::uint32_t first, std::uint32_t count);
  void copied(std::uint64_t serial, bool out);

  TransferEngine& engine_;
  InstanceMemory& memory_;
  Requests& requests_;
  Outbox& outbox_;
  const WorkerLimits& limits_;
  const Requests::Post post_;
  const std::uint32_t max_pushes_;
  SharedMemory host_;
  std::unique_ptr<KvMover> mover_;
  std::set<PeerKey> watched_;
  std::uint32_t pushes_ = 0;
  std::deque<PushKv> waiting_pushes_;  // for others to end; at most one for each request

  std::uint64_t handovers_ = 0;
  std::uint64_t handovers_failed_ = 0;
  kv::PushReport pushed_;
  std::uint64_t moves_out_ = 0;
  std::uint64_t moves_in_ = 0;
  std::uint64_t moved_bytes_ = 0;
  Nanos move_time_{};
};

}  // namespace switchyard::pool
