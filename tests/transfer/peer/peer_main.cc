// An engine in a process of its own, driven by lines on standard input; answers each with one line. It ends
// with its standard input, so that it never outlives the test.
//
//   counter                              -> slot generation epoch, of a new counter
//   arrived                              -> how many transfers the last counter has
//   expect N                             -> ok or the error, when it has come to N
//   filled SEED BYTES                    -> yes or no
//   write SEED BYTES ADDRESS KEY [S G E] -> ok or the error; counted at counter S G E
//   flood BYTES ADDRESS KEY              -> nothing: writes without end, 16 at a time
//   send TEXT ADDRESS                    -> ok or the error
//   lost                                 -> how many peers it has lost
//   connections                          -> how many it has
#include <atomic>
#include <iostream>
#include <sstream>

#include "base/log.h"
#include "transfer/support.h"

namespace switchyard::testing {
namespace {

struct Flood {
  TransferEngine& engine;
  Write write;
  void more() {
    static_cast<void>(engine.write(write, [this](const Status& status) {
      if (status) more();
    }));
  }
};

void run(const std::string& fabric, std::size_t bytes) {
  EngineOptions options;
  options.name = "peer";
  options.heartbeat_interval = std::chrono::milliseconds(100);
  options.heartbeat_limit = std::chrono::milliseconds(1000);
  Side side = make_side(fabric, bytes, options);
  std::vector<std::byte> out(bytes);
  auto source = side.engine->register_region(out.data(), out.size());
  std::atomic<int> lost{0};
  side.engine->on_peer_lost([&](const PeerAddress&, const Error&) { ++lost; });
  // Every message goes back to its sender.
  side.engine->on_message([&](const PeerAddress& from, std::span<const std::byte> message) {
    static_cast<void>(side.engine->send(from, message));
  });
  std::cout << to_hex(side.address().serialize()) << " " << to_hex(side.key().serialize()) << std::endl;

  Counter counter;
  std::unique_ptr<Flood> flood;
  std::string line;
  auto word = [](const Result<Transfer>& submitted, const Outcome& outcome) {
    return submitted ? outcome.word() : std::string(to_string(submitted.error().code));
  };
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string verb, address, key;
    words >> verb;
    if (verb == "counter") {
      counter = *side.engine->make_counter();
      std::cout << counter.id().slot << " " << counter.id().generation << " " << counter.id().epoch
                << std::endl;
    } else if (verb == "arrived") {
      std::cout << counter.arrived() << std::endl;
    } else if (verb == "expect") {
      std::uint64_t count = 0;
      words >> count;
      Outcome outcome;
      auto ok = counter.expect(count, soon(), outcome.done());
      std::cout << (ok ? outcome.word() : ok.error().message) << std::endl;
    } else if (verb == "filled") {
      std::uint64_t seed = 0, count = 0;
      words >> seed >> count;
      std::cout << (filled(side.bytes().first(count), seed) ? "yes" : "no") << std::endl;
    } else if (verb == "write" || verb == "flood") {
      std::uint64_t seed = 0, count = 0;
      if (verb == "write") words >> seed;
      words >> count >> address >> key;
      fill(std::span(out).first(count), seed);
      Write write;
      write.source = *source;
      write.bytes = count;
      write.peer = *PeerAddress::parse(from_hex(address));
      write.target = *RegionKey::parse(from_hex(key));
      CounterId id;
      if (words >> id.slot >> id.generation >> id.epoch) write.options.counter = id;
      if (verb == "flood") {
        flood = std::make_unique<Flood>(Flood{*side.engine, write});
        for (int i = 0; i < 16; ++i) flood->more();
      } else {
        Outcome outcome;
        auto submitted = side.engine->write(write, outcome.done());
        std::cout << word(submitted, outcome) << std::endl;
      }
    } else if (verb == "send") {
      std::string text;
      words >> text >> address;
      Outcome outcome;
      auto submitted = side.engine->send(*PeerAddress::parse(from_hex(address)),
                                         std::as_bytes(std::span(text)), outcome.done());
      std::cout << word(submitted, outcome) << std::endl;
    } else if (verb == "lost") {
      std::cout << lost << std::endl;
    } else if (verb == "connections") {
      std::cout << side.engine->metrics().peers_connected << std::endl;
    } else {
      std::cout << "what?" << std::endl;
    }
  }
  side.engine.reset();
}

}  // namespace
}  // namespace switchyard::testing

int main(int count, char** words) {
  if (count != 3) return 2;
  switchyard::log::start("peer", "off");
  switchyard::testing::run(words[1], std::stoul(words[2]));
  return 0;
}
