// What the dispatcher orders of instances, and what they report, over a Channel. One dispatcher, any number
// of instances; instances talk to each other only by writes of KV.
//
//   dispatcher -> instance                       instance -> dispatcher
//   Welcome                                      Hello, Stats
//   LoadModel, EvictModel                        Loaded
//   Introduce                                    (nothing)
//   Expect                                       Expecting, then KvHere
//   RunPrefill                                   Tokens, KvMoved or KvLost for what leaves, JobEnded
//   RunDecode, Join, StopJob                     Tokens, JobEnded
//   MoveOut, MoveIn                              KvMoved or KvLost
//   PushKv                                       (KvHere comes from the receiver) or KvLost
//   Release                                      Released
//
// A request is known by its Ticket: its id, and the number of its attempt, which changes whenever it begins
// again, so that news of an earlier attempt is not mistaken. An instance that does not know a ticket answers
// Release with Released and everything else with KvLost.
//
// An instance has one job at a time; orders for the next one come after JobEnded. Loads, moves and pushes go
// on beside it. Orders to one instance are carried out in the order in which they came, as far as they
// concern the same request or model. KV of a request is its tokens' but for the last one, which is fed by the
// next step.
//
// serialize() and parse() are those of pool/records.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kv/handover.h"
#include "memory/block_pool.h"
#include "memory/shared_memory.h"
#include "model/sampler.h"
#include "pool/generator.h"
#include "pool/records.h"
#include "schedule/types.h"
#include "switchyard/result.h"

namespace switchyard::pool {

using schedule::ModelId;

enum class OrderType : std::uint8_t {
  hello = 32,
  welcome,
  load_model,
  evict_model,
  loaded,
  introduce,
  expect,
  expecting,
  kv_here,
  run_prefill,
  run_decode,
  join,
  stop_job,
  tokens,
  job_ended,
  move_out,
  move_in,
  push_kv,
  kv_moved,
  kv_lost,
  release,
  released,
  stats,
};

struct Ticket {
  RequestId id = 0;
  std::uint32_t attempt = 0;
  friend auto operator<=>(const Ticket&, const Ticket&) = default;
  static auto fields(auto& self) { return std::tie(self.id, self.attempt); }
};

// --- Instances ---

// An instance has its memory and takes orders.
struct InstanceHello {
  static constexpr OrderType kType = OrderType::hello;
  std::string name;
  schedule::Role role = schedule::Role::unified;
  std::uint64_t kv_bytes = 0;  // whole slabs
  std::uint64_t slab_bytes = 0;
  std::uint32_t berths = 0;
  std::uint64_t berth_bytes = 0;  // of each
  std::uint32_t max_rows = 0;     // of a decode step

  static auto fields(auto& self) {
    return std::tie(self.name, self.role, self.kv_bytes, self.slab_bytes, self.berths, self.berth_bytes,
                    self.max_rows);
  }
};

// The answer: what the instances of a machine share.
struct Welcome {
  static constexpr OrderType kType = OrderType::welcome;
  SharedMemoryName host_kv;  // of no bytes: there is none

  static auto fields(auto& self) { return std::tie(self.host_kv); }
};

// --- Models ---

// Copies an image into a free berth. One load at a time.
struct LoadModel {
  static constexpr OrderType kType = OrderType::load_model;
  std::uint64_t serial = 0;
  ModelId model = schedule::kNoModel;
  SharedMemoryName image;  // stays until Loaded comes

  static auto fields(auto& self) { return std::tie(self.serial, self.model, self.image); }
};

// Frees the model's berth and forgets what was cached of its prompts. It runs no job then.
struct EvictModel {
  static constexpr OrderType kType = OrderType::evict_model;
  ModelId model = schedule::kNoModel;

  static auto fields(auto& self) { return std::tie(self.model); }
};

struct Loaded {
  static constexpr OrderType kType = OrderType::loaded;
  std::uint64_t serial = 0;
  ModelId model = schedule::kNoModel;
  bool ready = false;
  Error error{};  // when not ready
  std::uint64_t bytes = 0;
  Nanos took{};

  static auto fields(auto& self) {
    return std::tie(self.serial, self.model, self.ready, self.error, self.bytes, self.took);
  }
};

// --- Requests ---

// What there is to know of a request. Comes before any other order for the ticket.
struct Introduce {
  static constexpr OrderType kType = OrderType::introduce;
  Ticket ticket;
  ModelId model = schedule::kNoModel;
  kv::Shape shape;  // of the model's KV, which may come before the model itself
  std::vector<std::int32_t> prompt;
  std::vector<std::int32_t> output;  // tokens of earlier attempts
  model::SamplingParams sampling;
  std::uint32_t max_tokens = 0;  // output included
  std::vector<std::int32_t> end_tokens;

  static auto fields(auto& self) {
    return std::tie(self.ticket, self.model, self.shape, self.prompt, self.output, self.sampling,
                    self.max_tokens, self.end_tokens);
  }
};

// Takes blocks for `tokens` and waits for a peer to fill them. Where no blocks are free it waits for those
// that are about to be.
struct Expect {
  static constexpr OrderType kType = OrderType::expect;
  Ticket ticket;
  std::uint32_t tokens = 0;
  std::vector<std::byte> from;  // PeerAddress of the writer
  std::uint32_t limit_ms = 0;   // from now until the KV is complete

  static auto fields(auto& self) { return std::tie(self.ticket, self.tokens, self.from, self.limit_ms); }
};

struct Expecting {
  static constexpr OrderType kType = OrderType::expecting;
  Ticket ticket;
  kv::Destination destination;

  static auto fields(auto& self) { return std::tie(self.ticket, self.destination); }
};

// What was expected is complete.
struct KvHere {
  static constexpr OrderType kType = OrderType::kv_here;
  Ticket ticket;

  static auto fields(auto& self) { return std::tie(self.ticket); }
};

// Nothing of it is in a step, moves or lands here any more; its blocks are free. `writer_done`: the peer that
// was to fill its blocks has stopped; else its loss is waited for.
struct Release {
  static constexpr OrderType kType = OrderType::release;
  Ticket ticket;
  bool writer_done = false;

  static auto fields(auto& self) { return std::tie(self.ticket, self.writer_done); }
};

struct Released {
  static constexpr OrderType kType = OrderType::released;
  Ticket ticket;

  static auto fields(auto& self) { return std::tie(self.ticket); }
};

// --- Jobs ---

enum class KvTarget : std::uint8_t { stay = 0, peer, host };

// Computes prompts (and the output so far) and samples one token of each. KV that does not stay is sent while
// it is computed; the instance forgets the request when it has gone.
struct RunPrefill {
  static constexpr OrderType kType = OrderType::run_prefill;
  struct Prompt {
    Ticket ticket;
    KvTarget target = KvTarget::stay;
    std::vector<std::byte> peer;       // PeerAddress
    kv::Destination destination;       // of the peer
    std::vector<BlockId> host_blocks;  // in host_kv
    static auto fields(auto& self) {
      return std::tie(self.ticket, self.target, self.peer, self.destination, self.host_blocks);
    }
  };
  std::uint64_t job = 0;
  ModelId model = schedule::kNoModel;
  std::vector<Prompt> prompts;

  static auto fields(auto& self) { return std::tie(self.job, self.model, self.prompts); }
};

struct Row {
  Ticket ticket;
  std::vector<std::int32_t> news;  // output that this instance does not know yet
  static auto fields(auto& self) { return std::tie(self.ticket, self.news); }
};

// Steps these rows until the time is up, none is left, or StopJob comes.
struct RunDecode {
  static constexpr OrderType kType = OrderType::run_decode;
  std::uint64_t job = 0;
  ModelId model = schedule::kNoModel;
  std::vector<Row> rows;
  Nanos limit{};  // from its first step; 0: one step

  static auto fields(auto& self) { return std::tie(self.job, self.model, self.rows, self.limit); }
};

// One more row, from the next step on. When the job has ended meanwhile the row does not join anything, but
// its `news` are taken all the same: the dispatcher does not send them twice.
struct Join {
  static constexpr OrderType kType = OrderType::join;
  std::uint64_t job = 0;
  Row row;

  static auto fields(auto& self) { return std::tie(self.job, self.row); }
};

struct StopJob {
  static constexpr OrderType kType = OrderType::stop_job;
  std::uint64_t job = 0;

  static auto fields(auto& self) { return std::tie(self.job); }
};

enum class RowOutcome : std::uint8_t { running = 0, end_token, length, failed };

// Tokens that a job made. An end token is not among them. A request that has ended is forgotten, but for KV
// that is on its way elsewhere.
struct Tokens {
  static constexpr OrderType kType = OrderType::tokens;
  struct Entry {
    Ticket ticket;
    std::vector<model::SampledToken> tokens;
    RowOutcome outcome = RowOutcome::running;
    Error error{};  // of failed
    static auto fields(auto& self) { return std::tie(self.ticket, self.tokens, self.outcome, self.error); }
  };
  std::uint64_t job = 0;
  std::vector<Entry> entries;

  static auto fields(auto& self) { return std::tie(self.job, self.entries); }
};

struct JobEnded {
  static constexpr OrderType kType = OrderType::job_ended;
  std::uint64_t job = 0;
  Nanos took{};  // of its steps
  std::uint32_t steps = 0;
  std::uint64_t rows = 0;     // decode: summed over steps
  std::uint64_t context = 0;  // decode: tokens of all rows, summed over steps
  std::uint64_t tokens = 0;   // prefill: computed
  std::uint64_t reused = 0;   // prefill: found in blocks of earlier prompts

  static auto fields(auto& self) {
    return std::tie(self.job, self.took, self.steps, self.rows, self.context, self.tokens, self.reused);
  }
};

// --- KV ---

// To host memory, whole blocks; the instance forgets the request then.
struct MoveOut {
  static constexpr OrderType kType = OrderType::move_out;
  Ticket ticket;
  std::vector<BlockId> host_blocks;

  static auto fields(auto& self) { return std::tie(self.ticket, self.host_blocks); }
};

// From host memory.
struct MoveIn {
  static constexpr OrderType kType = OrderType::move_in;
  Ticket ticket;
  std::vector<BlockId> host_blocks;

  static auto fields(auto& self) { return std::tie(self.ticket, self.host_blocks); }
};

// To another instance, which was told to expect it; this one forgets the request when it has gone.
struct PushKv {
  static constexpr OrderType kType = OrderType::push_kv;
  Ticket ticket;
  std::vector<std::byte> peer;
  kv::Destination destination;

  static auto fields(auto& self) { return std::tie(self.ticket, self.peer, self.destination); }
};

// A move to or from host memory is complete.
struct KvMoved {
  static constexpr OrderType kType = OrderType::kv_moved;
  Ticket ticket;
  std::uint64_t bytes = 0;
  Nanos took{};

  static auto fields(auto& self) { return std::tie(self.ticket, self.bytes, self.took); }
};

// The KV that was to move, arrive or be computed is not to be had; the instance has forgotten the request,
// and nothing of it lands anywhere by its doing any more.
struct KvLost {
  static constexpr OrderType kType = OrderType::kv_lost;
  Ticket ticket;
  Error why{};

  static auto fields(auto& self) { return std::tie(self.ticket, self.why); }
};

}  // namespace switchyard::pool
