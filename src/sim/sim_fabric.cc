#include "sim/sim_fabric.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace switchyard::sim {

using fabric::Completion;
using fabric::WriteRequest;

namespace {

constexpr std::uint64_t kMagic = 0x6c69'6172'6d69'7321;
constexpr std::uint64_t kKeySlotBits = 16;

struct WireAddress {
  std::uint64_t magic = kMagic;
  std::uint64_t fabric = 0;
};
struct WireToken {
  std::uint64_t magic = ~kMagic;
  std::uint64_t end = 0;
};

template <class T>
std::vector<std::byte> to_bytes(const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  return {bytes.begin(), bytes.end()};
}

}  // namespace

class SimFabric::Memory final : public fabric::LocalMemory {
 public:
  Memory(std::shared_ptr<SimFabric> home, std::size_t slot) : home_(std::move(home)), slot_(slot) {
    const Registration& own = home_->memory_[slot_];
    key_ = own.key;
    address_ = own.address;
  }
  ~Memory() override {
    const std::lock_guard lock(home_->network_.mutex);
    Registration& own = home_->memory_[slot_];
    if (own.key != key_) return;  // its process has ended
    home_->network_.note(Event::memory_removed, home_->id_, slot_);
    own.key = 0;
    for (const Write& write : home_->writes_) {
      if (write.used && write.source_key == key_ && write.request.bytes != 0) {
        home_->network_.violate(fmt::format(
            "contract of the rail: process {} unregisters memory that its write {} still reads from",
            home_->process_, write.serial));
      }
    }
  }
  std::uint64_t remote_address() const override { return address_; }
  std::uint64_t remote_key() const override { return key_; }

 private:
  std::shared_ptr<SimFabric> home_;
  std::size_t slot_;
  std::uint64_t key_ = 0, address_ = 0;
};

SimFabric::SimFabric(Network& network, ProcessId process, std::uint32_t port)
    : network_(network), process_(process), port_(port) {
  const PortOptions& options = own_port().options;
  capabilities_ = {.fabric = options.fabric,
                   .ordered = options.ordered,
                   .local = false,
                   .max_write_bytes = options.max_write_bytes,
                   .max_outstanding = options.max_outstanding,
                   .window = options.window,
                   .bytes_per_second = options.tells_speed ? options.bytes_per_second : 0};
}

std::shared_ptr<SimFabric> SimFabric::open(Network& network, ProcessId process, std::uint32_t port) {
  std::shared_ptr<SimFabric> self(new SimFabric(network, process, port));
  self->id_ = static_cast<std::uint32_t>(network.fabrics.size());
  network.fabrics.push_back(self);
  return self;
}

std::vector<std::byte> SimFabric::address() const { return to_bytes(WireAddress{.fabric = id_}); }

Result<std::unique_ptr<fabric::LocalMemory>> SimFabric::register_memory(const fabric::MemoryRange& range) {
  const std::lock_guard lock(network_.mutex);
  if (range.dmabuf >= 0) return fail(ErrorCode::unsupported, "fabric 'sim': no device has memory here");
  if (closed_) return fail(ErrorCode::io, "fabric 'sim': the rail is closed");
  const std::size_t slot = memory_.size();
  if (slot >> kKeySlotBits != 0) return fail(ErrorCode::exhausted, "fabric 'sim': too many regions");
  // Addresses of its own, so that nothing in a run depends on where the memory happens to lie.
  const std::uint64_t address = (network_.random().next() & 0xff'ffff) << 32;
  const std::uint64_t key = (network_.random().next() | 1) << kKeySlotBits | slot;
  memory_.push_back({key, static_cast<std::byte*>(range.base), range.bytes, address});
  network_.note(Event::memory_added, id_, slot, range.bytes);
  auto self = network_.fabrics[id_];
  return std::make_unique<Memory>(std::move(self), slot);
}

SimFabric::Registration* SimFabric::find_memory(std::uint64_t key) {
  const std::size_t slot = key & ((1u << kKeySlotBits) - 1);
  return slot < memory_.size() && memory_[slot].key == key && key != 0 ? &memory_[slot] : nullptr;
}

Result<fabric::PathEnd> SimFabric::add_peer(std::span<const std::byte> address) {
  WireAddress wire;
  if (address.size() != sizeof wire)
    return fail(ErrorCode::corrupt, "fabric 'sim': {} bytes are not an address", address.size());
  std::memcpy(&wire, address.data(), sizeof wire);
  if (wire.magic != kMagic || wire.fabric >= network_.fabrics.size())
    return fail(ErrorCode::corrupt, "fabric 'sim': not an address");
  if (closed_) return fail(ErrorCode::io, "fabric 'sim': the rail is closed");
  auto free = std::find(ends_.begin(), ends_.end(), kNoEnd);
  if (free == ends_.end()) free = ends_.insert(ends_.end(), kNoEnd);
  const auto peer = static_cast<fabric::PeerId>(free - ends_.begin());
  *free = network_.ends.size();
  network_.ends.push_back({.fabric = id_, .peer = peer});
  network_.note(Event::end_added, id_, *free);
  return fabric::PathEnd{peer, to_bytes(WireToken{.end = *free})};
}

Status SimFabric::connect_peer(fabric::PeerId peer, std::span<const std::byte> token) {
  WireToken wire;
  if (token.size() != sizeof wire) return fail(ErrorCode::corrupt, "fabric 'sim': not a token");
  std::memcpy(&wire, token.data(), sizeof wire);
  if (wire.magic != ~kMagic || wire.end >= network_.ends.size())
    return fail(ErrorCode::corrupt, "fabric 'sim': not a token");
  if (closed_) return fail(ErrorCode::io, "fabric 'sim': the rail is closed");
  if (peer >= ends_.size() || ends_[peer] == kNoEnd) {
    network_.violate(
        fmt::format("contract of the rail: process {} connects an end that it has not added", process_));
    return fail(ErrorCode::io, "fabric 'sim': no such end");
  }
  network_.ends[ends_[peer]].other = wire.end;
  network_.note(Event::end_connected, id_, ends_[peer], wire.end);
  return {};
}

void SimFabric::remove_peer(fabric::PeerId peer) {
  if (closed_) return;
  if (peer >= ends_.size() || ends_[peer] == kNoEnd) {
    network_.violate(
        fmt::format("contract of the rail: process {} removes an end that it does not have", process_));
    return;
  }
  const std::uint64_t end = std::exchange(ends_[peer], kNoEnd);
  network_.note(Event::end_removed, id_, end);
  network_.ends[end].removed = true;
  abandon(end);
}

bool SimFabric::healthy() const {
  const Port& port = network_.port(network_.process(process_).host, port_);
  return port.up || !port.announced;
}

std::string SimFabric::describe_error(int error) const {
  switch (error) {
    case kRetriesExhausted:
      return "no acknowledgement came";
    case kFlushed:
      return "flushed, the path has broken";
    case kAccessRefused:
      return "the target refuses access";
    default:
      return fmt::format("error {}", error);
  }
}

void SimFabric::close() {
  if (std::exchange(closed_, true)) return;
  network_.note(Event::fabric_closed, id_);
  for (std::uint64_t& end : ends_) {
    if (end == kNoEnd) continue;
    network_.ends[end].removed = true;
    abandon(std::exchange(end, kNoEnd));
  }
  for (Registration& each : memory_) each.key = 0;
  completions_.clear();
}

std::size_t SimFabric::poll(std::span<Completion> completions) {
  const std::size_t count = std::min(completions.size(), completions_.size());
  std::copy_n(completions_.begin(), count, completions.begin());
  completions_.erase(completions_.begin(), completions_.begin() + static_cast<std::ptrdiff_t>(count));
  return count;
}

void SimFabric::push(const Completion& completion) {
  if (closed_) return;
  completions_.push_back(completion);
  network_.wake(process_);
}

std::size_t SimFabric::post(fabric::PeerId peer, std::span<const WriteRequest> requests) {
  if (closed_) return 0;
  if (peer >= ends_.size() || ends_[peer] == kNoEnd || network_.ends[ends_[peer]].other == kNoEnd) {
    network_.violate(
        fmt::format("contract of the rail: process {} posts on an end that is not connected", process_));
    return 0;
  }
  Port& port = own_port();
  std::size_t room = std::min<std::size_t>(requests.size(), capabilities_.max_outstanding - outstanding_);
  if (network_.now() < port.refuses_until) room = network_.random().below(room + 1) / 2;
  network_.process(process_).cpu += port.options.cpu_per_post + room * port.options.cpu_per_write;
  for (const WriteRequest& request : requests.first(room)) {
    std::uint64_t source_key = 0;
    if (request.bytes != 0) {
      source_key = request.source_memory != nullptr ? request.source_memory->remote_key() : 0;
      const Registration* source = find_memory(source_key);
      if (source == nullptr || request.source < source->base ||
          request.source + request.bytes > source->base + source->bytes ||
          request.bytes > capabilities_.max_write_bytes) {
        network_.violate(
            fmt::format("contract of the rail: process {} posts a write of {} bytes from outside of its "
                        "registered memory, "
                        "or longer than {} bytes",
                        process_, request.bytes, capabilities_.max_write_bytes));
        return 0;
      }
    }
    std::uint32_t index = 0;
    if (free_writes_.empty()) {
      index = static_cast<std::uint32_t>(writes_.size());
      writes_.emplace_back();
    } else {
      index = free_writes_.back();
      free_writes_.pop_back();
    }
    Write& write = writes_[index];
    const std::uint64_t serial = next_serial_++;
    write = Write{.serial = serial,
                  .request = request,
                  .data = request.source,
                  .source_key = source_key,
                  .from_end = ends_[peer],
                  .to_end = network_.ends[ends_[peer]].other,
                  .posted = network_.now(),
                  .used = true};
    ++outstanding_;
    network_.note(Event::posted, id_, serial, request.bytes,
                  request.has_immediate ? std::uint64_t{request.immediate} + 1 : 0);
    transmit(index);
  }
  return room;
}

}  // namespace switchyard::sim
