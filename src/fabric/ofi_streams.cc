// Paths of connected endpoints. The rail listens; of the two ends of a path the one with the smaller secret
// calls, with the other's secret, which the control channel has brought. Who does not know it is turned away.
// A path of a rail to itself has one end and two endpoints.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/log.h"
#include "base/random.h"
#include "fabric/ofi_path.h"
#include "fabric/ofi_token.h"

namespace switchyard::fabric {
namespace {

constexpr std::size_t kMaxName = 128;

class Streams;

class StreamPath final : public OfiPath {
 public:
  StreamPath(Streams& home, const OfiToken::Secret& secret) : home_(home), secret_(secret) {}
  ~StreamPath() override;
  std::vector<std::byte> token() const override;
  Status connect(std::span<const std::byte> token) override;

  const OfiToken::Secret& secret() const { return secret_; }
  // A caller that knows the secret. True: it is taken.
  bool accept(fi_info* info);
  bool owns(fid_t endpoint) const {
    return (endpoint_ && &endpoint_->fid == endpoint) || (echo_ && &echo_->fid == endpoint);
  }
  void connected(fid_t endpoint) {
    if (endpoint_ && &endpoint_->fid == endpoint && state_ == State::joining) state_ = State::up;
  }
  void lost() { state_ = State::broken; }

 private:
  Streams& home_;
  const OfiToken::Secret secret_;
  Fid<fid_ep> echo_;  // takes what a path to the own rail writes
  bool loops_ = false;
};

class Streams final : public OfiPaths {
 public:
  Streams(std::shared_ptr<OfiDomain> domain, fid_cq* queue) : domain_(std::move(domain)), queue_(queue) {}
  Status listen();
  Result<std::unique_ptr<OfiPath>> make() override;
  void look() override;

 private:
  friend class StreamPath;
  // Errors: io, exhausted.
  Result<Fid<fid_ep>> open_endpoint(fi_info* info);
  void take_caller(const fi_eq_cm_entry& entry, std::size_t bytes);
  StreamPath* owner_of(fid_t endpoint);

  std::shared_ptr<OfiDomain> domain_;
  fid_cq* queue_;
  Fid<fid_eq> events_;
  Fid<fid_pep> listener_;
  std::vector<std::byte> name_;
  std::vector<StreamPath*> paths_;
};

StreamPath::~StreamPath() {
  // The endpoints first: their events refer to them until then.
  echo_.reset();
  endpoint_.reset();
  std::erase(home_.paths_, this);
}

std::vector<std::byte> StreamPath::token() const {
  return encode(OfiToken{.secret = secret_, .name = home_.name_});
}

Status StreamPath::connect(std::span<const std::byte> token) {
  auto theirs = decode_ofi_token(token);
  if (!theirs) return pass(theirs.error());
  // Providers read as many bytes as their own names have.
  if (theirs->name.size() != home_.name_.size())
    return fail(ErrorCode::corrupt, "fabric '{}': the token has the name of another kind of network",
                home_.domain_->shown);
  loops_ = theirs->secret == secret_;
  const bool calls = loops_ || secret_ < theirs->secret;
  if (!calls || endpoint_) return {};
  Info info(fi_dupinfo(home_.domain_->info.get()));
  if (!info) return fail(ErrorCode::exhausted, "libfabric: no memory");
  std::free(info->dest_addr);
  info->dest_addr = std::malloc(theirs->name.size());
  if (info->dest_addr == nullptr) return fail(ErrorCode::exhausted, "libfabric: no memory");
  info->dest_addrlen = theirs->name.size();
  std::memcpy(info->dest_addr, theirs->name.data(), theirs->name.size());
  auto opened = home_.open_endpoint(info.get());
  if (!opened) return pass(opened.error());
  endpoint_ = std::move(*opened);
  if (int code = fi_connect(endpoint_.get(), info->dest_addr, theirs->secret.data(), theirs->secret.size()))
    return home_.domain_->failed("fi_connect", code);
  return {};
}

bool StreamPath::accept(fi_info* info) {
  Fid<fid_ep>& place = loops_ && endpoint_ ? echo_ : endpoint_;
  if (place || state_ == State::broken) return false;
  auto opened = home_.open_endpoint(info);
  if (!opened) {
    log::debug("{}", opened.error().message);
    return false;
  }
  if (fi_accept(opened->get(), nullptr, 0) != 0) return false;
  place = std::move(*opened);
  return true;
}

Status Streams::listen() {
  fi_eq_attr attributes{};
  attributes.wait_obj = FI_WAIT_NONE;
  fid_eq* events = nullptr;
  if (int code = fi_eq_open(domain_->fabric.get(), &attributes, &events, nullptr))
    return domain_->failed("fi_eq_open", code);
  events_.reset(events);
  fid_pep* listener = nullptr;
  if (int code = fi_passive_ep(domain_->fabric.get(), domain_->info.get(), &listener, nullptr))
    return domain_->failed("fi_passive_ep", code);
  listener_.reset(listener);
  if (int code = fi_pep_bind(listener, &events->fid, 0)) return domain_->failed("fi_pep_bind", code);
  if (int code = fi_listen(listener)) return domain_->failed("fi_listen", code);
  std::size_t bytes = kMaxName;
  name_.resize(bytes);
  if (int code = fi_getname(&listener->fid, name_.data(), &bytes)) return domain_->failed("fi_getname", code);
  name_.resize(bytes);
  return {};
}

Result<std::unique_ptr<OfiPath>> Streams::make() {
  OfiToken::Secret secret{};
  if (auto ok = fill_random(secret); !ok) return pass(ok.error());
  auto path = std::make_unique<StreamPath>(*this, secret);
  paths_.push_back(path.get());
  return std::unique_ptr<OfiPath>(std::move(path));
}

Result<Fid<fid_ep>> Streams::open_endpoint(fi_info* info) {
  fid_ep* made = nullptr;
  if (int code = fi_endpoint(domain_->domain.get(), info, &made, nullptr))
    return domain_->failed("fi_endpoint", code);
  Fid<fid_ep> endpoint(made);
  if (int code = fi_ep_bind(made, &events_->fid, 0)) return domain_->failed("fi_ep_bind", code);
  if (int code = fi_ep_bind(made, &queue_->fid, FI_TRANSMIT | FI_RECV))
    return domain_->failed("fi_ep_bind", code);
  if (int code = fi_enable(made)) return domain_->failed("fi_enable", code);
  return endpoint;
}

StreamPath* Streams::owner_of(fid_t endpoint) {
  const auto found =
      std::find_if(paths_.begin(), paths_.end(), [&](StreamPath* path) { return path->owns(endpoint); });
  return found == paths_.end() ? nullptr : *found;
}

void Streams::take_caller(const fi_eq_cm_entry& entry, std::size_t bytes) {
  const Info info(entry.info);
  OfiToken::Secret secret{};
  if (bytes >= sizeof entry + secret.size()) {
    std::memcpy(secret.data(), entry.data, secret.size());
    const auto found = std::find_if(paths_.begin(), paths_.end(),
                                    [&](StreamPath* path) { return path->secret() == secret; });
    if (found != paths_.end() && (*found)->accept(info.get())) return;
  }
  // Late ones, of a path that has been removed meanwhile, come here as well as strangers.
  log::debug("fabric '{}': a connection to no path was refused", domain_->shown);
  fi_reject(listener_.get(), info->handle, nullptr, 0);
}

void Streams::look() {
  constexpr int kMost = 64;  // at a time
  alignas(fi_eq_cm_entry) std::byte memory[sizeof(fi_eq_cm_entry) + 256];
  for (int i = 0; i < kMost; ++i) {
    std::uint32_t event = 0;
    const ssize_t got = fi_eq_read(events_.get(), &event, memory, sizeof memory, 0);
    if (got == -FI_EAVAIL) {
      fi_eq_err_entry error{};
      if (fi_eq_readerr(events_.get(), &error, 0) < 0) return;
      log::debug("fabric '{}': a connection failed: {}", domain_->shown, ofi_text(error.err));
      if (StreamPath* path = owner_of(error.fid)) path->lost();
      continue;
    }
    if (got < static_cast<ssize_t>(sizeof(fi_eq_cm_entry))) return;
    const auto& entry = *reinterpret_cast<const fi_eq_cm_entry*>(memory);
    if (event == FI_CONNREQ) {
      take_caller(entry, static_cast<std::size_t>(got));
    } else if (StreamPath* path = owner_of(entry.fid)) {
      if (event == FI_CONNECTED) path->connected(entry.fid);
      if (event == FI_SHUTDOWN) path->lost();
    }
  }
}

}  // namespace

Result<std::unique_ptr<OfiPaths>> open_ofi_streams(std::shared_ptr<OfiDomain> domain, fid_cq* queue) {
  auto streams = std::make_unique<Streams>(std::move(domain), queue);
  if (auto ok = streams->listen(); !ok) return pass(ok.error());
  return std::unique_ptr<OfiPaths>(std::move(streams));
}

}  // namespace switchyard::fabric
