// What happened in a simulation: a hash over all of it, which tells whether a replay was the same, and the
// text of the latest events, for the report of a failure.
//
// Adding an event costs a few nanoseconds: text is made only when it is asked for.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "switchyard/time.h"

namespace switchyard::sim {

enum class Event : std::uint8_t {
  posted,           // fabric, write, bytes, immediate + 1 or 0
  landed,           // fabric (target), write, offset, bytes
  dropped,          // fabric (target), write, offset, bytes
  delivered,        // fabric, write
  failed,           // fabric, write, refused
  arrived,          // fabric (target), write, immediate
  end_added,        // fabric, end
  end_connected,    // fabric, end, other end
  end_removed,      // fabric, end
  memory_added,     // fabric, key index, bytes
  memory_removed,   // fabric, key index
  fabric_closed,    // fabric
  write_broken,     // fabric, write, mode
  path_broken,      // fabric, end
  port_down,        // host, port, announced
  port_up,          // host, port
  port_slow,        // host, port, percent
  port_refuses,     // host, port, for so many ns
  host_isolated,    // host
  host_joined,      // host
  host_died,        // host
  process_started,  // process, host
  process_killed,   // process
  process_paused,   // process, for so many ns
  process_stopped,  // process
  dialled,          // process, link, other host
  link_opened,      // process, link
  link_closed,      // process, link
  link_broken,      // connection
  record_sent,      // process, link, type, bytes
  record_read,      // process, link, type, bytes
  stepped,          // process, busy
  submitted,        // process, operation, kind, bytes
  done,             // process, operation, error code + 1 or 0
  cancelled,        // process, operation
  drained,          // process, operation
  counted,          // process, counter, total
  peer_lost,        // process, other process
};

class Trace {
 public:
  void add(TimePoint when, Event event, std::uint64_t a = 0, std::uint64_t b = 0, std::uint64_t c = 0,
           std::uint64_t d = 0) {
    const Entry entry{when, {a, b, c, d}, event};
    hash_ = mix(hash_ ^ static_cast<std::uint64_t>(when.time_since_epoch().count()));
    hash_ = mix(hash_ ^ (static_cast<std::uint64_t>(event) << 56) ^ a ^ (b << 20));
    hash_ = mix(hash_ ^ c ^ (d << 24));
    ++count_;
    if (event == Event::stepped && b == 0) return;
    if (latest_.size() < kKept) {
      latest_.push_back(entry);
    } else {
      latest_[kept_ % kKept] = entry;
    }
    ++kept_;
  }
  std::uint64_t hash() const { return hash_; }
  std::uint64_t events() const { return count_; }

  // The latest events in words, oldest first; without steps that had nothing to do.
  std::vector<std::string> latest(std::size_t limit) const;

 private:
  static constexpr std::size_t kKept = 1 << 15;
  struct Entry {
    TimePoint when{};
    std::array<std::uint64_t, 4> operands{};
    Event event{};
  };
  static std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93;
    return x ^ (x >> 32);
  }

  std::uint64_t hash_ = 0x5eed;
  std::uint64_t count_ = 0, kept_ = 0;
  std::vector<Entry> latest_;  // a ring when it is full
};

}  // namespace switchyard::sim
