// Paths of datagram endpoints, for providers that have no others: an endpoint and an address table for each
// path. Whoever knows an endpoint's name can reach it.
#include "fabric/ofi_path.h"
#include "fabric/ofi_token.h"

namespace switchyard::fabric {
namespace {

constexpr std::size_t kMaxName = 224;  // so that a token stays below PathEnd::kMaxTokenBytes

class DatagramPath final : public OfiPath {
 public:
  explicit DatagramPath(std::shared_ptr<OfiDomain> domain) : domain_(std::move(domain)) {}
  ~DatagramPath() override { endpoint_.reset(); }  // before its table

  Status open(fid_cq* queue) {
    fi_av_attr attributes{};
    attributes.type = FI_AV_TABLE;
    attributes.count = 1;
    fid_av* table = nullptr;
    if (int code = fi_av_open(domain_->domain.get(), &attributes, &table, nullptr))
      return domain_->failed("fi_av_open", code);
    addresses_.reset(table);
    fid_ep* made = nullptr;
    if (int code = fi_endpoint(domain_->domain.get(), domain_->info.get(), &made, nullptr))
      return domain_->failed("fi_endpoint", code);
    endpoint_.reset(made);
    if (int code = fi_ep_bind(made, &table->fid, 0)) return domain_->failed("fi_ep_bind", code);
    if (int code = fi_ep_bind(made, &queue->fid, FI_TRANSMIT | FI_RECV))
      return domain_->failed("fi_ep_bind", code);
    if (int code = fi_enable(made)) return domain_->failed("fi_enable", code);
    std::size_t bytes = kMaxName;
    name_.resize(bytes);
    if (int code = fi_getname(&made->fid, name_.data(), &bytes)) return domain_->failed("fi_getname", code);
    name_.resize(bytes);
    return {};
  }

  std::vector<std::byte> token() const override { return encode(OfiToken{.name = name_}); }

  Status connect(std::span<const std::byte> token) override {
    auto theirs = decode_ofi_token(token);
    if (!theirs) return pass(theirs.error());
    // Providers read as many bytes as their own names have, or up to a terminating zero.
    if (domain_->info->addr_format == FI_ADDR_STR ? theirs->name.back() != std::byte{0}
                                                  : theirs->name.size() != name_.size())
      return fail(ErrorCode::corrupt, "fabric '{}': the token has the name of another kind of network",
                  domain_->shown);
    const int count = fi_av_insert(addresses_.get(), theirs->name.data(), 1, &target_, 0, nullptr);
    if (count != 1) return domain_->failed("fi_av_insert", count < 0 ? count : -FI_EINVAL);
    state_ = State::up;
    return {};
  }

 private:
  std::shared_ptr<OfiDomain> domain_;
  Fid<fid_av> addresses_;
  std::vector<std::byte> name_;
};

class Datagrams final : public OfiPaths {
 public:
  Datagrams(std::shared_ptr<OfiDomain> domain, fid_cq* queue) : domain_(std::move(domain)), queue_(queue) {}
  Result<std::unique_ptr<OfiPath>> make() override {
    auto path = std::make_unique<DatagramPath>(domain_);
    if (auto ok = path->open(queue_); !ok) return pass(ok.error());
    return std::unique_ptr<OfiPath>(std::move(path));
  }

 private:
  std::shared_ptr<OfiDomain> domain_;
  fid_cq* queue_;
};

}  // namespace

Result<std::unique_ptr<OfiPaths>> open_ofi_datagrams(std::shared_ptr<OfiDomain> domain, fid_cq* queue) {
  return std::unique_ptr<OfiPaths>(std::make_unique<Datagrams>(std::move(domain), queue));
}

Result<std::unique_ptr<OfiPaths>> OfiPaths::open(std::shared_ptr<OfiDomain> domain, fid_cq* queue) {
  const bool connected = domain->info->ep_attr->type == FI_EP_MSG;
  return connected ? open_ofi_streams(std::move(domain), queue)
                   : open_ofi_datagrams(std::move(domain), queue);
}

}  // namespace switchyard::fabric
