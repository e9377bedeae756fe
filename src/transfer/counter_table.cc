#include "transfer/counter_table.h"

#include <algorithm>

namespace switchyard::transfer {
namespace {

constexpr std::uint64_t kUnarmed = ~std::uint64_t{0};
constexpr int kCountBits = 48;
constexpr std::uint64_t kCountMask = (std::uint64_t{1} << kCountBits) - 1;

std::uint32_t generation_of(std::uint64_t state) { return static_cast<std::uint32_t>(state >> kCountBits); }

}  // namespace

CounterTable::CounterTable(std::uint32_t slots) : slots_(std::min(slots, kMaxSlots)) {
  for (std::uint32_t i = 0; i < slots_.size(); ++i) free_.push_back(i);
  fired_.reserve(slots_.size());
  touched_.reserve(slots_.size());
}

Result<CounterTable::Name> CounterTable::make() {
  std::lock_guard lock(mutex_);
  if (closed_) return pass(*closed_);
  if (free_.empty()) return fail(ErrorCode::exhausted, "all {} counters are in use", slots_.size());
  const std::uint32_t index = free_.front();
  free_.pop_front();
  Slot& slot = slots_[index];
  slot.used = true;
  const std::uint32_t generation = generation_of(slot.state.load(std::memory_order_relaxed));
  slot.state.store(std::uint64_t{generation} << kCountBits);
  return Name{index, generation};
}

CounterTable::Slot* CounterTable::find(Name name) {
  Slot& slot = slots_[name.slot];
  return slot.used && generation_of(slot.state.load(std::memory_order_relaxed)) == name.generation ? &slot
                                                                                                   : nullptr;
}

const CounterTable::Slot* CounterTable::find(Name name) const {
  return const_cast<CounterTable*>(this)->find(name);
}

void CounterTable::touch(Slot& slot, std::uint32_t index) {
  if (!std::exchange(slot.touched, true)) touched_.push_back(index);
  has_fired_.store(true, std::memory_order_release);
}

void CounterTable::fire(Slot& slot, std::uint32_t index, Status status) {
  slot.target.store(kUnarmed);
  fired_.emplace_back(std::exchange(slot.done, {}), std::move(status));
  if (slot.deadline != TimePoint::max()) {
    slot.deadline = TimePoint::max();
    touch(slot, index);
  }
  has_fired_.store(true, std::memory_order_release);
}

void CounterTable::free(Name name) {
  std::lock_guard lock(mutex_);
  Slot* slot = find(name);
  if (slot == nullptr) return;
  if (slot->done) fire(*slot, name.slot, fail(ErrorCode::cancelled, "the counter was freed"));
  slot->used = false;
  // From here on an immediate for it finds another generation.
  slot->state.store(std::uint64_t{(name.generation + 1) & 0xffff} << kCountBits);
  free_.push_back(name.slot);
}

Status CounterTable::expect(Name name, std::uint64_t target, TimePoint deadline, Done done) {
  if (!done) return fail(ErrorCode::invalid, "expect: a Done is needed");
  std::lock_guard lock(mutex_);
  if (closed_) return pass(*closed_);
  Slot* slot = find(name);
  if (slot == nullptr) return fail(ErrorCode::invalid, "expect: no such counter");
  if (slot->done) return fail(ErrorCode::invalid, "expect: the counter already has an expectation");
  slot->done = std::move(done);
  slot->deadline = deadline;
  if (deadline != TimePoint::max()) touch(*slot, name.slot);
  // Sequentially consistent against arrival(): one of the two sees the other.
  slot->target.store(target);
  if ((slot->state.load() & kCountMask) >= target) fire(*slot, name.slot, {});
  return {};
}

void CounterTable::cancel(Name name) {
  std::lock_guard lock(mutex_);
  Slot* slot = find(name);
  if (slot == nullptr || !slot->done) return;
  fire(*slot, name.slot, fail(ErrorCode::cancelled, "the expectation was withdrawn"));
}

std::uint64_t CounterTable::arrived(Name name) const {
  const std::uint64_t state = slots_[name.slot].state.load(std::memory_order_acquire);
  return generation_of(state) == name.generation ? state & kCountMask : 0;
}

std::uint32_t CounterTable::used() const {
  std::lock_guard lock(mutex_);
  return static_cast<std::uint32_t>(slots_.size() - free_.size());
}

bool CounterTable::arrival(Name name) {
  const std::uint32_t index = name.slot;
  if (index >= slots_.size()) return false;
  Slot& slot = slots_[index];
  std::uint64_t state = slot.state.load();
  do {
    if (generation_of(state) != name.generation) return false;
  } while (!slot.state.compare_exchange_weak(state, state + 1));
  if (((state + 1) & kCountMask) < slot.target.load()) return true;
  std::lock_guard lock(mutex_);
  // The expectation may have been fulfilled, withdrawn or replaced meanwhile: judge anew.
  if (slot.done && (slot.state.load() & kCountMask) >= slot.target.load()) fire(slot, index, {});
  return true;
}

void CounterTable::take_fired(std::vector<Fired>& out) {
  std::lock_guard lock(mutex_);
  has_fired_.store(false, std::memory_order_relaxed);
  for (Fired& fired : fired_) out.push_back(std::move(fired));
  fired_.clear();
}

void CounterTable::take_touched(std::vector<std::pair<std::uint32_t, TimePoint>>& out) {
  std::lock_guard lock(mutex_);
  for (std::uint32_t index : touched_) {
    slots_[index].touched = false;
    out.emplace_back(index, slots_[index].deadline);
  }
  touched_.clear();
}

void CounterTable::time_out(std::uint32_t index, TimePoint now) {
  std::lock_guard lock(mutex_);
  Slot& slot = slots_[index];
  if (!slot.done || slot.deadline > now) return;
  const std::uint64_t arrived = slot.state.load() & kCountMask;
  fire(slot, index,
       fail(ErrorCode::timed_out, "{} of {} expected transfers had arrived at the deadline", arrived,
            slot.target.load()));
}

void CounterTable::close(const Error& why) {
  std::lock_guard lock(mutex_);
  closed_ = why;
  for (std::uint32_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].done) fire(slots_[i], i, pass(why));
  }
}

}  // namespace switchyard::transfer
