// The handshake of the control channel as a machine: records in, records out.
#include "transfer/control_handshake.h"

#include <gtest/gtest.h>

namespace switchyard::testing {
namespace {

using namespace transfer;
using Side = ControlHandshake::Side;

const std::string kKey = "sixteen bytes at least";

std::shared_ptr<const ControlSecurity> security(const std::string& key) {
  return ControlSecurity::create(key, {}).value();
}

Record only_record(const std::vector<std::byte>& bytes) {
  auto header = parse_header(bytes, kMaxHandshakeBytes).value().value();
  EXPECT_EQ(bytes.size(), kRecordHeaderBytes + header.payload_bytes);
  return parse_record(header.type, std::span(bytes).subspan(kRecordHeaderBytes)).value();
}

// A side and what it said last.
struct Party {
  ControlHandshake handshake;
  std::vector<std::byte> said;

  Party(Side side, const std::string& key = kKey, const std::string& endpoint = "10.0.0.1:5")
      : handshake(security(key), side, endpoint) {
    if (side == Side::dialler) {
      EXPECT_TRUE(handshake.begin(said));
    }
  }
  Record last() const { return only_record(said); }
  std::string take(const Record& record) {
    said.clear();
    auto over = handshake.take(record, said);
    return over ? (*over ? "over" : "more") : std::string(to_string(over.error().code));
  }
};

TEST(ControlHandshake, WithoutAKeyGreetingsAreAll) {
  Party d(Side::dialler, ""), a(Side::acceptor, "");
  EXPECT_EQ(a.take(d.last()), "over");
  EXPECT_EQ(d.take(a.last()), "over");
}

TEST(ControlHandshake, WithAKeyBothProveIt) {
  Party d(Side::dialler), a(Side::acceptor);
  EXPECT_EQ(a.take(d.last()), "more");
  EXPECT_EQ(d.take(a.last()), "more");
  EXPECT_EQ(a.take(d.last()), "over");
  EXPECT_EQ(d.take(a.last()), "over");
  EXPECT_EQ(d.handshake.tls_key().value(), a.handshake.tls_key().value());
}

TEST(ControlHandshake, EveryConnectionHasAnotherKeyForTls) {
  std::vector<Mac> keys;
  for (int i = 0; i < 2; ++i) {
    Party d(Side::dialler), a(Side::acceptor);
    a.take(d.last());
    d.take(a.last());
    keys.push_back(d.handshake.tls_key().value());
  }
  EXPECT_NE(keys[0], keys[1]);
}

TEST(ControlHandshake, AnotherKeyAnotherAddressOrAChangedProofIsDenied) {
  struct {
    std::string key, endpoint;
  } others[] = {{kKey + "x", "10.0.0.1:5"}, {kKey, "10.0.0.2:5"}, {kKey, "10.0.0.1:50"}};
  for (const auto& other : others) {
    Party d(Side::dialler), a(Side::acceptor, other.key, other.endpoint);
    a.take(d.last());
    d.take(a.last());
    EXPECT_EQ(a.take(d.last()), "denied");
    EXPECT_TRUE(a.said.empty()) << "nothing that is made with the key";
  }
  for (std::size_t bit = 0; bit < 256; bit += 17) {
    Party d(Side::dialler), a(Side::acceptor);
    a.take(d.last());
    d.take(a.last());
    Proof proof = std::get<Proof>(d.last());
    proof.mac[bit / 8] ^= static_cast<std::uint8_t>(1 << (bit % 8));
    EXPECT_EQ(a.take(proof), "denied");
  }
}

TEST(ControlHandshake, RecordsOfAnEarlierConnectionAreWorthless) {
  Party d(Side::dialler), a(Side::acceptor);
  const Record greeting = d.last();
  a.take(greeting);
  d.take(a.last());
  const Record proof = d.last();
  ASSERT_EQ(a.take(proof), "over");
  Party again(Side::acceptor);
  EXPECT_EQ(again.take(greeting), "more");
  EXPECT_EQ(again.take(proof), "denied");
}

// A dialler that meets its own words: with its own nonce and its own proof sent back it does not believe.
TEST(ControlHandshake, ReflectedProofsAreDenied) {
  Party d(Side::dialler);
  EXPECT_EQ(d.take(d.last()), "more");
  EXPECT_EQ(d.take(d.last()), "denied");
  // An acceptor's words, sent to it.
  Party a(Side::acceptor);
  Greeting greeting{.security = ControlSecurity::kKey};
  EXPECT_EQ(a.take(greeting), "more");
  EXPECT_EQ(a.take(a.last()), "corrupt");
}

TEST(ControlHandshake, OtherSettingsAndVersionsAreRefusedWithoutANonce) {
  Party a(Side::acceptor);
  Greeting greeting;
  EXPECT_EQ(a.take(greeting), "denied") << "without a key";
  EXPECT_TRUE(a.said.empty());
  greeting.security = ControlSecurity::kKey | ControlSecurity::kTls;
  EXPECT_EQ(a.take(greeting), "denied");
  greeting.security = ControlSecurity::kKey;
  greeting.version = kControlVersion + 1;
  EXPECT_EQ(a.take(greeting), "unsupported");
  EXPECT_TRUE(a.said.empty());
}

TEST(ControlHandshake, RecordsOutOfTurnAreRefused) {
  for (const Record& record : {Record{Proof{}}, Record{Heartbeat{}}, Record{Welcome{}}, Record{Hello{}}}) {
    Party a(Side::acceptor), d(Side::dialler);
    EXPECT_EQ(a.take(record), "corrupt");
    EXPECT_EQ(d.take(record), "corrupt");
  }
  Party d(Side::dialler), a(Side::acceptor);
  const Record greeting = d.last();
  a.take(greeting);
  EXPECT_EQ(a.take(greeting), "corrupt") << "twice";
}

// What a refused side is told is the same for every key and every setting.
TEST(ControlHandshake, RefusalsSayNothing) {
  const Reject a = ControlHandshake::refusal({ErrorCode::denied, "another key"});
  const Reject b = ControlHandshake::refusal({ErrorCode::denied, "no TLS"});
  EXPECT_EQ(a.reason, b.reason);
  EXPECT_EQ(a.why, Reject::Why::denied);
}

}  // namespace
}  // namespace switchyard::testing
