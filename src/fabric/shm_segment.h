// The memory that a `shm` rail shares with its peers: its region table, and one ring of immediates per
// writer.
//
// Every field is written by one side at a time, with the order that its comment states. A ring belongs to the
// writer whose nonce stands in `owner`; the reader frees it when that writer can write no more (it said so,
// or its process is gone) and everything in it has been read.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "switchyard/result.h"

namespace switchyard::fabric {

constexpr std::uint64_t kSegmentMagic = 0x31'6d'68'73'64'79'77'73;  // "swydshm1"
constexpr std::uint32_t kRingEntries = 1024;
constexpr std::uint32_t kMaxRings = 512;
constexpr std::uint32_t kMaxRegions = 4096;
constexpr std::uint32_t kGonePid = 0xffff'ffff;        // in owner_pid: the writer is done with the ring
constexpr std::uint64_t kRevoked = ~std::uint64_t{0};  // in owner: the reader has forgotten the writer

static_assert(std::atomic<std::uint64_t>::is_always_lock_free &&
              std::atomic<std::uint32_t>::is_always_lock_free);

struct SharedRing {
  alignas(
      64) std::atomic<std::uint64_t> owner;  // nonce of the writer, 0 when free; claimed by compare-exchange
  std::atomic<std::uint32_t> owner_pid;
  alignas(64) std::atomic<std::uint32_t> head;  // next to read; written by the reader
  alignas(64) std::atomic<std::uint32_t> tail;  // next to write; written by the owner, after the entry
  std::array<std::atomic<std::uint32_t>, kRingEntries> entries;
};

struct SharedRegion {
  std::atomic<std::uint64_t> key;  // 0 when free; written last, cleared first
  std::atomic<std::uint64_t> address;
  std::atomic<std::uint64_t> bytes;
};

struct Segment {
  std::uint64_t magic;
  std::uint64_t nonce;
  std::uint64_t self;  // its address in its own process, for a first probe of the right to write there
  std::atomic<std::uint32_t> closed;  // its process will write no more
  std::atomic<std::uint32_t> asleep;  // its reader waits on the pipe; whoever exchanges 1 for 0 rings
  std::array<std::atomic<std::uint64_t>, kMaxRings / 64> pending;  // rings that have entries
  std::array<SharedRegion, kMaxRegions> regions;
  std::array<SharedRing, kMaxRings> rings;
};

// A mapping of a segment, ours or a peer's.
class SegmentMapping {
 public:
  SegmentMapping() = default;
  SegmentMapping(SegmentMapping&& other) noexcept : segment_(other.segment_) { other.segment_ = nullptr; }
  SegmentMapping& operator=(SegmentMapping&& other) noexcept {
    std::swap(segment_, other.segment_);
    return *this;
  }
  ~SegmentMapping();
  static Result<SegmentMapping> map(int descriptor);
  Segment* operator->() const { return segment_; }
  Segment& operator*() const { return *segment_; }
  explicit operator bool() const { return segment_ != nullptr; }

 private:
  Segment* segment_ = nullptr;
};

// A rail's address as it travels.
struct ShmAddress {
  std::uint64_t magic = kSegmentMagic;
  std::uint64_t nonce = 0;
  std::uint64_t host = 0;  // of the boot and the PID namespace: both must be the same
  std::uint32_t pid = 0;
  std::uint32_t segment_descriptor = 0;
  std::uint32_t pipe_descriptor = 0;
  std::uint32_t reserved = 0;
};

// Names this boot of this host and this PID namespace.
std::uint64_t host_identity();

}  // namespace switchyard::fabric
