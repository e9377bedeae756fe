// What makes a counted transfer count exactly once, whatever order its pieces come in and however often a
// failover sends one of them again.
//
// The receiver has a log for every peer: kWindow records in registered memory, which that peer writes.
// Counted transfers to a peer are numbered; number n has the record n % kWindow, which names the counter, and
// is counted when the immediates that the record asks for have come:
//   data    rides on the transfer's last write. Enough where the rail keeps order and the record was posted
//           before; together with `record` where a transfer of a single write goes over a rail without order.
//   record  rides on the write of the record itself, when everything else has been delivered.
// An immediate is the peer's tag at the receiver (16 bits: its index and generation), which of the two it is
// (1), and the number (15). A number is used again only after its write has completed at the sender, so what
// is under way spans less than kWindow numbers. A second arrival of the same immediate changes nothing.
//
// Threads: the worker alone.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "transfer/counter_table.h"

namespace switchyard::transfer {

struct ArrivalRecord {
  std::uint32_t session = 0;  // of the connection, as the receiver named it in its introduction
  std::uint32_t number = 0;   // lower 30 bits; the upper two say which immediates it needs
  std::uint32_t slot = 0;     // of the counter
  std::uint32_t generation = 0;
};
static_assert(sizeof(ArrivalRecord) == 16);

enum class ArrivalKind : std::uint32_t { data = 1, record = 2 };

constexpr std::uint32_t kArrivalWindow = 512;
constexpr std::size_t kConfirmBatch = 64;
constexpr std::uint32_t kConfirmSpan = kArrivalWindow / 4;  // half of what a sender may have unconfirmed
constexpr std::uint32_t kArrivalNumberMask = (1u << 30) - 1;
constexpr std::size_t kArrivalLogBytes = kArrivalWindow * sizeof(ArrivalRecord);  // per peer

constexpr std::uint32_t arrival_immediate(std::uint16_t peer_index, ArrivalKind kind, std::uint32_t number) {
  return std::uint32_t{peer_index} << 16 | (kind == ArrivalKind::record ? 1u << 15 : 0u) | (number & 0x7fff);
}

// The receiving side, for one peer.
class ArrivalLog {
 public:
  enum class Outcome { counted, waiting, repeated, stray };

  // `records` has kArrivalWindow entries, which the peer writes. A new connection starts anew.
  void open(const ArrivalRecord* records, std::uint32_t session) {
    records_ = records;
    session_ = session;
    seen_ = {};
    newest_ = 0;
    unconfirmed_.clear();
    unconfirmed_.reserve(kConfirmBatch);
  }
  bool is_open() const { return records_ != nullptr; }

  Outcome arrival(std::uint32_t immediate, CounterTable& counters);
  // Counted since the last confirmed(): lower 15 bits.
  std::span<const std::uint16_t> unconfirmed() const { return unconfirmed_; }
  // There are many of them, or one is so far behind the newest number that its sender may soon have no other.
  bool confirms_now() const {
    return unconfirmed_.size() >= kConfirmBatch ||
           (!unconfirmed_.empty() && ((newest_ - oldest_unconfirmed_) & 0x7fff) >= kConfirmSpan);
  }
  void confirmed() { unconfirmed_.clear(); }
  // The numbers that have been counted, as far as it remembers: lower 15 bits.
  std::vector<std::uint16_t> counted() const;

 private:
  struct Seen {
    std::uint16_t number = 0;  // lower 15 bits
    bool any = false;
    std::uint8_t kinds = 0;
    bool counted = false;
  };

  const ArrivalRecord* records_ = nullptr;
  std::uint32_t session_ = 0;
  std::array<Seen, kArrivalWindow> seen_{};
  std::vector<std::uint16_t> unconfirmed_;
  std::uint16_t oldest_unconfirmed_ = 0, newest_ = 0;  // lower 15 bits
};

// The sending side, for one peer: hands out numbers while the window has room.
class ArrivalNumbers {
 public:
  bool has_room() const { return next_ - oldest_ < kArrivalWindow / 2; }
  std::uint32_t take() {
    const std::uint32_t number = next_++;
    places_[number % kArrivalWindow] = {};
    return number;
  }
  // The transfer has ended here. `arrives`: its immediates are at the other side, which will confirm them.
  void end(std::uint32_t number, bool arrives) {
    Place& place = places_[number % kArrivalWindow];
    place.ended = true;
    place.confirmed |= !arrives;
    advance();
  }
  // By its lower 15 bits, as the other side gives it; what is not under way is ignored.
  void confirm(std::uint16_t number) {
    const std::uint32_t ahead = (number - oldest_) & 0x7fff;
    if (ahead >= next_ - oldest_) return;
    places_[(oldest_ + ahead) % kArrivalWindow].confirmed = true;
    advance();
  }

 private:
  struct Place {
    bool ended = false, confirmed = false;
  };
  void advance() {
    while (oldest_ != next_ && places_[oldest_ % kArrivalWindow].ended &&
           places_[oldest_ % kArrivalWindow].confirmed)
      ++oldest_;
  }

  std::uint32_t next_ = 0, oldest_ = 0;
  std::array<Place, kArrivalWindow> places_{};
};

}  // namespace switchyard::transfer
