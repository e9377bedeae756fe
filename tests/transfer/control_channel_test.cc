// The control channel with every kind of security: what opens, what is refused, and what travels.
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <filesystem>

#include "transfer/control_pair.h"

namespace switchyard::testing {
namespace {

using transfer::ControlChannel;

// Certificates made for one test, in a directory that goes with it.
class Certificates {
 public:
  Certificates() {
    directory_ = std::filesystem::temp_directory_path() /
                 fmt::format("switchyard-tls-{}-{}", getpid(), static_cast<const void*>(this));
    std::filesystem::create_directories(directory_);
    ca_ = make("ca", nullptr);
    make("peer", &ca_);
    other_ca_ = make("other_ca", nullptr);
    make("stranger", &other_ca_);
  }
  ~Certificates() {
    for (auto* authority : {&ca_, &other_ca_}) {
      X509_free(authority->certificate);
      EVP_PKEY_free(authority->key);
    }
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }
  std::string file(const std::string& name) const { return directory_ / name; }
  TlsOptions options(const std::string& who = "peer") const {
    return {true, file(who + ".pem"), file(who + ".key"), file("ca.pem")};
  }

 private:
  struct Authority {
    X509* certificate = nullptr;
    EVP_PKEY* key = nullptr;
  };

  Authority make(const std::string& name, const Authority* issuer) {
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial_);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    const Authority self{certificate, key};
    const Authority& signer = issuer != nullptr ? *issuer : self;
    X509_set_issuer_name(certificate, X509_get_subject_name(signer.certificate));
    if (issuer == nullptr) {
      X509_EXTENSION* extension =
          X509V3_EXT_conf_nid(nullptr, nullptr, NID_basic_constraints, "critical,CA:TRUE");
      X509_add_ext(certificate, extension, -1);
      X509_EXTENSION_free(extension);
    }
    X509_sign(certificate, signer.key, EVP_sha256());
    FILE* pem = std::fopen(file(name + ".pem").c_str(), "w");
    PEM_write_X509(pem, certificate);
    std::fclose(pem);
    pem = std::fopen(file(name + ".key").c_str(), "w");
    PEM_write_PrivateKey(pem, key, nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(pem);
    if (issuer == nullptr) return self;
    X509_free(certificate);
    EVP_PKEY_free(key);
    return {};
  }

  std::filesystem::path directory_;
  Authority ca_, other_ca_;
  int serial_ = 0;
};

struct Case {
  std::string name;
  bool key, tls, certificates;
};

class Secured : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override { spdlog::set_level(spdlog::level::off); }
  ControlChannel::Options options() const {
    ControlChannel::Options options;
    if (GetParam().key) options.shared_key = kSharedKey;
    options.tls.enabled = GetParam().tls;
    if (GetParam().certificates) options.tls = certificates_.options();
    return options;
  }
  Certificates certificates_;
};
INSTANTIATE_TEST_SUITE_P(All, Secured,
                         ::testing::Values(Case{"Plain", false, false, false},
                                           Case{"Key", true, false, false}, Case{"KeyTls", true, true, false},
                                           Case{"Certificates", false, true, true},
                                           Case{"KeyCertificates", true, true, true}),
                         [](const auto& test) { return test.param.name; });

TEST_P(Secured, MessagesPathsAndHeartbeatsTravelBothWays) {
  Station a(options()), b(options());
  const auto link = a.dial(b);
  ASSERT_TRUE(poll_until({&a, &b}, [&] { return a.witness.open.size() == 1 && b.witness.open.size() == 1; }));
  EXPECT_EQ(a.witness.open[0], link);
  std::string long_text(60'000, 'x');
  for (std::size_t i = 0; i < long_text.size(); ++i) long_text[i] = static_cast<char>(i * 31 / 7);
  for (int round = 0; round < 50; ++round) {
    const auto bytes = std::as_bytes(std::span(long_text)).first(static_cast<std::size_t>(round) * 1200);
    ASSERT_TRUE(poll_until({&a, &b}, [&] { return a.channel->send_message(link, 100 + round, bytes); }));
    ASSERT_TRUE(
        poll_until({&a, &b}, [&] { return b.channel->send_message(b.witness.open[0], round, bytes); }));
  }
  transfer::PathRecord path;
  path.token.assign(256, std::byte{3});
  a.channel->send_path(link, path);
  b.channel->ring(b.witness.open[0]);
  ASSERT_TRUE(poll_until({&a, &b}, [&] {
    return a.witness.acks.size() == 50 && b.witness.acks.size() == 50 && b.witness.paths.size() == 1;
  }));
  for (int round = 0; round < 50; ++round) {
    EXPECT_EQ(b.witness.messages[round], long_text.substr(0, round * 1200));
    EXPECT_EQ(a.witness.messages[round], long_text.substr(0, round * 1200));
    EXPECT_EQ(a.witness.acks[round], 100u + round);
  }
  a.channel->close(link, "enough");
  ASSERT_TRUE(poll_until({&a, &b}, [&] { return b.witness.closed.size() == 1; }));
  EXPECT_EQ(b.witness.closed[0].code, ErrorCode::peer_lost);
  EXPECT_NE(b.witness.closed[0].message.find("enough"), std::string::npos);
}

TEST_P(Secured, AnEarlierEpochIsDenied) {
  Station a(options()), b(options());
  --b.self.epoch;
  a.dial(b);
  ASSERT_TRUE(poll_until({&a, &b}, [&] { return a.witness.closed.size() == 1; }));
  EXPECT_EQ(a.witness.closed[0].code, ErrorCode::denied);
  EXPECT_NE(a.witness.closed[0].message.find("new epoch"), std::string::npos);
  EXPECT_EQ(b.witness.hellos, 0);
}

// Whatever differs: denied, at once, on the side that dialled; the other takes nobody in; neither has said
// who it is.
TEST(ControlSecurity, EndsThatDifferRefuseEachOther) {
  spdlog::set_level(spdlog::level::off);
  Certificates certificates;
  std::vector<ControlChannel::Options> kinds(7);
  kinds[1].shared_key = kSharedKey;
  kinds[2].shared_key = kSharedKey + "!";
  kinds[3].shared_key = kSharedKey;
  kinds[3].tls.enabled = true;
  kinds[4].shared_key = kSharedKey + "!";
  kinds[4].tls.enabled = true;
  kinds[5].tls = certificates.options();
  kinds[6].tls = certificates.options("stranger");
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    for (std::size_t j = 0; j < kinds.size(); ++j) {
      // A stranger's certificate and our CA: it trusts us, we do not trust it.
      if (i == j && i != 6) continue;
      Station a(kinds[i]), b(kinds[j]);
      a.dial(b);
      ASSERT_TRUE(poll_until({&a, &b}, [&] { return a.witness.closed.size() == 1; })) << i << j;
      EXPECT_EQ(a.witness.closed[0].code, ErrorCode::denied) << i << j << a.witness.closed[0].message;
      EXPECT_EQ(b.witness.hellos, 0) << i << j;
      EXPECT_TRUE(a.witness.open.empty()) << i << j;
      // The port stays open to those who belong.
      Station friendly(kinds[j]);
      if (j == 6) continue;
      friendly.dial(b);
      EXPECT_TRUE(poll_until({&b, &friendly}, [&] { return friendly.witness.open.size() == 1; })) << i << j;
    }
  }
}

TEST(ControlSecurity, OptionsThatCannotWorkAreRefusedWhenOpened) {
  Certificates certificates;
  auto code = [](auto change) {
    ControlChannel::Options options;
    options.host = "127.0.0.1";
    change(options);
    auto opened = ControlChannel::open(options);
    return opened ? std::string("ok") : std::string(to_string(opened.error().code));
  };
  EXPECT_EQ(code([](auto& o) { o.shared_key = "short"; }), "invalid");
  EXPECT_EQ(code([](auto& o) { o.shared_key.resize(5000); }), "invalid");
  EXPECT_EQ(code([](auto& o) { o.tls.enabled = true; }), "invalid");
  EXPECT_EQ(code([&](auto& o) { o.tls = certificates.options(), o.tls.ca_file.clear(); }), "invalid");
  EXPECT_EQ(code([&](auto& o) { o.tls = certificates.options(), o.tls.enabled = false; }), "invalid");
  EXPECT_EQ(code([&](auto& o) { o.tls = certificates.options(), o.tls.ca_file += "no"; }), "invalid");
  EXPECT_EQ(code([&](auto& o) { o.tls = certificates.options(), o.tls.key_file = o.tls.ca_file; }),
            "invalid");
  EXPECT_EQ(code([&](auto& o) {
              o.tls = certificates.options();
              o.tls.key_file = certificates.file("stranger.key");
            }),
            "invalid");
  EXPECT_EQ(code([&](auto& o) { o.tls = certificates.options(); }), "ok");
}

}  // namespace
}  // namespace switchyard::testing
