#include "transfer_side.h"

#include <sys/resource.h>

#include <array>
#include <cstring>

#include "base/log.h"
#include "plain_libfabric.h"
#include "transfer_drive.h"

namespace switchyard::bench {
namespace {

using nlohmann::json;

constexpr std::uint64_t kMaxMemory = std::uint64_t{4} << 30;
constexpr Nanos kWaitLimit = std::chrono::minutes(10);

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> items;
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t comma = std::min(list.find(',', at), list.size());
    items.push_back(list.substr(at, comma - at));
    at = comma + 1;
  }
  return items;
}

json counter_card(const Counter& counter) {
  const CounterId id = counter.id();
  return {id.slot, id.generation, id.epoch};
}

CounterId counter_of(const json& card) {
  return {card.at(0).get<std::uint32_t>(), card.at(1).get<std::uint32_t>(), card.at(2).get<std::uint64_t>()};
}

}  // namespace

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

RailSet::~RailSet() {
  for (Rail& rail : rails) {
    rail.fabric->remove_peer(rail.end.peer);
    rail.memory.reset();
    rail.fabric->close();
  }
}

json RailSet::card() const {
  json card = json::array();
  for (const Rail& rail : rails) {
    card.push_back({{"address", to_hex(rail.fabric->address())},
                    {"target", rail.memory->remote_address()},
                    {"key", rail.memory->remote_key()}});
  }
  return card;
}

Status RailSet::meet(const json& card) {
  if (card.size() != rails.size())
    return fail(ErrorCode::invalid, "{} bare rails here, {} there", rails.size(), card.size());
  for (std::size_t i = 0; i < rails.size(); ++i) {
    const auto address = from_hex(card[i].at("address").get<std::string>());
    if (!address) return pass(address.error());
    auto end = rails[i].fabric->add_peer(*address);
    if (!end) return pass(end.error());
    rails[i].end = std::move(*end);
    rails[i].target_address = card[i].at("target").get<std::uint64_t>();
    rails[i].target_key = card[i].at("key").get<std::uint64_t>();
  }
  return {};
}

json RailSet::tokens() const {
  json tokens = json::array();
  for (const Rail& rail : rails) tokens.push_back(to_hex(rail.end.token));
  return tokens;
}

Status RailSet::join(const json& tokens) {
  for (std::size_t i = 0; i < rails.size(); ++i) {
    const auto token = from_hex(tokens.at(i).get<std::string>());
    if (!token) return pass(token.error());
    if (auto ok = rails[i].fabric->connect_peer(rails[i].end.peer, *token); !ok) return ok;
  }
  return {};
}

fabric::WriteRequest RailSet::write(std::size_t index, const std::byte* base, std::uint64_t offset,
                                    std::uint64_t bytes) const {
  const Rail& rail = rails[index];
  return {.source = base + offset,
          .source_memory = rail.memory.get(),
          .bytes = bytes,
          .target_address = rail.target_address + offset,
          .target_key = rail.target_key};
}

Result<std::unique_ptr<Side>> Side::open(const std::string& fabric, const std::string& host,
                                         std::uint64_t bytes) {
  if (bytes == 0 || bytes > kMaxMemory)
    return fail(ErrorCode::out_of_range, "{} bytes of memory are too many for a benchmark", bytes);
  auto side = std::make_unique<Side>();
  auto memory = Arena::create(bytes);
  if (!memory) return pass(memory.error());
  side->memory_ = std::move(*memory);
  std::memset(side->memory_.base(), 1, side->memory_.bytes());

  EngineOptions options;
  options.name = "bench";
  options.fabric = fabric;
  options.control_host = host;
  auto engine = TransferEngine::open(options);
  if (!engine) return pass(engine.error());
  side->engine_ = std::move(*engine);
  auto region = side->engine_->register_region(side->base(), side->bytes());
  if (!region) return pass(region.error());
  side->region_ = std::move(*region);
  for (Counter* counter : {&side->sink_, &side->echo_}) {
    auto made = side->engine_->make_counter();
    if (!made) return pass(made.error());
    *counter = std::move(*made);
  }

  auto add = [&](RailSet& set, std::shared_ptr<fabric::Fabric> rail) -> Status {
    auto registered = rail->register_memory({side->base(), side->bytes()});
    if (!registered) return pass(registered.error());
    set.rails.push_back({.fabric = std::move(rail), .memory = std::move(*registered)});
    return {};
  };
  for (const std::string& item : split(fabric)) {
    const std::size_t at = std::min(item.find('@'), item.size());
    const std::string name = item.substr(0, at);
    const std::string where = at < item.size() ? item.substr(at + 1) : std::string();
    const bool is_device = name == "verbs";
    auto rail = fabric::open_fabric(name, {.host = is_device || where.empty() ? host : where,
                                           .device = is_device ? where : std::string(),
                                           .max_peers = 16});
    if (!rail) return pass(rail.error());
    if (auto ok = add(side->raw_, std::move(*rail)); !ok) return pass(ok.error());
    if (is_device) continue;
    auto plain = open_plain_libfabric(name, where.empty() ? host : where);
    if (!plain) {
      log::debug("nothing to compare with: {}", plain.error().message);
      continue;
    }
    if (auto ok = add(side->plain_, std::move(*plain)); !ok) return pass(ok.error());
  }
  return side;
}

Side::~Side() {
  if (engine_) engine_->on_message({});
  sink_ = echo_ = Counter();
  engine_.reset();
}

json Side::card() const {
  return {{"peer", to_hex(engine_->address().serialize())},
          {"region", to_hex(region_.key().serialize())},
          {"sink", counter_card(sink_)},
          {"echo", counter_card(echo_)},
          {"raw", raw_.card()},
          {"plain", plain_.card()}};
}

Status Side::meet(const json& card) {
  const auto address = from_hex(card.at("peer").get<std::string>());
  const auto key = from_hex(card.at("region").get<std::string>());
  if (!address || !key) return fail(ErrorCode::corrupt, "the other side's card is not one");
  auto peer = PeerAddress::parse(*address);
  auto target = RegionKey::parse(*key);
  if (!peer) return pass(peer.error());
  if (!target) return pass(target.error());
  peer_ = std::move(*peer);
  target_ = std::move(*target);
  far_sink_ = counter_of(card.at("sink"));
  far_echo_ = counter_of(card.at("echo"));
  if (auto ok = raw_.meet(card.at("raw")); !ok) return ok;
  // Where one side has no plain libfabric, there is no comparison with it.
  if (card.at("plain").size() != plain_.rails.size()) {
    plain_.rails.clear();
    return {};
  }
  return plain_.meet(card.at("plain"));
}

json Side::tokens() const { return {{"raw", raw_.tokens()}, {"plain", plain_.tokens()}}; }

Status Side::join(const json& tokens) {
  if (auto ok = raw_.join(tokens.at("raw")); !ok) return ok;
  if (tokens.at("plain").size() != plain_.rails.size()) plain_.rails.clear();
  return plain_.join(tokens.at("plain"));
}

Write Side::write(std::uint64_t offset, std::uint64_t bytes) const {
  return {.source = region_,
          .source_offset = offset,
          .peer = peer_,
          .target = target_,
          .target_offset = offset,
          .bytes = bytes};
}

void Side::arm_echo() {
  static_cast<void>(echo_.expect(++echoes_, monotonic_now() + kWaitLimit, [this](const Status& status) {
    if (!status) return;
    Write back = write(0, 8);
    back.options.counter = far_echo_;
    static_cast<void>(engine_->write(std::move(back), {}));
    arm_echo();
  }));
}

void Side::answer_echoes() {
  arm_echo();
  engine_->on_message([this](const PeerAddress& from, std::span<const std::byte> message) {
    if (!message.empty() && message[0] == std::byte{kEcho})
      static_cast<void>(engine_->send(from, message, {}));
  });
}

void Side::progress(RailSet& set, const Link& link) {
  std::array<fabric::Completion, 64> completions;
  Patience patience;
  for (unsigned round = 0; round % 256 != 0 || !link.readable(); ++round) {
    bool any = false;
    for (std::size_t i = 0; i < set.rails.size(); ++i) {
      RailSet::Rail& rail = set.rails[i];
      const std::size_t count = rail.fabric->poll(completions);
      any |= count != 0;
      for (std::size_t c = 0; c < count; ++c) {
        if (completions[c].kind != fabric::Completion::Kind::arrived || completions[c].immediate != kEcho)
          continue;
        fabric::WriteRequest back = set.write(i, base(), 0, 8);
        back.has_immediate = true;
        back.immediate = kEcho;
        for (int tries = 0; rail.fabric->post(rail.end.peer, {&back, 1}) == 0 && tries < 1000; ++tries) {
        }
      }
    }
    patience.found(any);
  }
}

void serve_transfer_bench(Link link) {
  std::unique_ptr<Side> side;
  auto answer = [&](const json& request) -> Result<json> {
    const std::string what = request.at("do").get<std::string>();
    if (what == "open") {
      side.reset();
      auto opened = Side::open(request.at("fabric").get<std::string>(), link.local_host(),
                               request.at("bytes").get<std::uint64_t>());
      if (!opened) return pass(opened.error());
      side = std::move(*opened);
      return side->card();
    }
    if (what == "close") {
      side.reset();
      return json::object();
    }
    if (!side) return fail(ErrorCode::invalid, "nothing is open");
    if (what == "meet") {
      if (auto ok = side->meet(request.at("card")); !ok) return pass(ok.error());
      return side->tokens();
    }
    if (what == "join") {
      if (auto ok = side->join(request.at("tokens")); !ok) return pass(ok.error());
      side->answer_echoes();
      return json::object();
    }
    return json{{"cpu", cpu_seconds()}};
  };
  while (true) {
    auto request = link.receive(monotonic_now() + kWaitLimit);
    if (!request) return;
    json reply;
    bool raw = false, plain = false;
    try {
      auto answered = answer(*request);
      reply = answered ? *answered : json{{"error", answered.error().message}};
      raw = side && request->at("do") == "raw";
      plain = side && request->at("do") == "plain";
    } catch (const json::exception& error) {
      reply = {{"error", error.what()}};
    }
    if (!link.send(reply)) return;
    if (raw) side->progress(side->raw(), link);
    if (plain) side->progress(side->plain(), link);
  }
}

}  // namespace switchyard::bench
