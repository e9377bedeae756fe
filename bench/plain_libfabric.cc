#include "plain_libfabric.h"

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "fabric/ofi_handles.h"

namespace switchyard::bench {
namespace {

constexpr std::uint32_t kContexts = 1024;

using fabric::Fid;
using fabric::Info;

struct Context {
  fi_context2 provider;
  std::uint64_t cookie = 0;
};

class PlainMemory final : public fabric::LocalMemory {
 public:
  PlainMemory(Fid<fid_mr> region, std::uint64_t address) : region_(std::move(region)), address_(address) {}
  std::uint64_t remote_address() const override { return address_; }
  std::uint64_t remote_key() const override { return fi_mr_key(region_.get()); }
  void* descriptor() const { return fi_mr_desc(region_.get()); }

 private:
  Fid<fid_mr> region_;
  std::uint64_t address_;
};

class PlainLibfabric final : public fabric::Fabric {
 public:
  Status open(const std::string& provider, const std::string& host);

  const fabric::Capabilities& capabilities() const override { return capabilities_; }
  std::vector<std::byte> address() const override { return address_; }

  Result<std::unique_ptr<fabric::LocalMemory>> register_memory(const fabric::MemoryRange& range) override {
    fid_mr* region = nullptr;
    const int mode = info_->domain_attr->mr_mode;
    int code = fi_mr_reg(domain_.get(), range.base, range.bytes, FI_WRITE | FI_REMOTE_WRITE, 0, next_key_++,
                         0, &region, nullptr);
    Fid<fid_mr> owner(region);
    if (code == 0 && (mode & FI_MR_ENDPOINT) != 0) {
      code = fi_mr_bind(region, &endpoint_->fid, 0);
      if (code == 0) code = fi_mr_enable(region);
    }
    if (code != 0) return error("fi_mr_reg", code);
    return std::make_unique<PlainMemory>(
        std::move(owner), (mode & FI_MR_VIRT_ADDR) != 0 ? reinterpret_cast<std::uint64_t>(range.base) : 0);
  }

  Result<fabric::PathEnd> add_peer(std::span<const std::byte> address) override {
    if (fi_av_insert(addresses_.get(), address.data(), 1, &peer_, 0, nullptr) != 1)
      return error("fi_av_insert", -FI_EINVAL);
    return fabric::PathEnd{};
  }
  void remove_peer(fabric::PeerId) override { fi_av_remove(addresses_.get(), &peer_, 1, 0); }

  std::size_t post(fabric::PeerId, std::span<const fabric::WriteRequest> requests) override {
    std::size_t taken = 0;
    for (const fabric::WriteRequest& request : requests) {
      if (free_.empty()) break;
      Context* context = free_.back();
      context->cookie = request.cookie;
      iovec local{const_cast<std::byte*>(request.source), request.bytes};
      void* descriptor = static_cast<const PlainMemory*>(request.source_memory)->descriptor();
      fi_rma_iov remote{request.target_address, request.bytes, request.target_key};
      fi_msg_rma message{};
      message.msg_iov = &local;
      message.desc = &descriptor;
      message.iov_count = 1;
      message.addr = peer_;
      message.rma_iov = &remote;
      message.rma_iov_count = 1;
      message.context = context;
      message.data = request.immediate;
      const ssize_t code = fi_writemsg(endpoint_.get(), &message,
                                       FI_COMPLETION | (request.has_immediate ? FI_REMOTE_CQ_DATA : 0));
      if (code != 0) {
        if (code != -FI_EAGAIN) failed_ = static_cast<int>(-code);
        break;
      }
      free_.pop_back();
      ++taken;
    }
    return taken;
  }

  std::size_t poll(std::span<fabric::Completion> completions) override {
    constexpr std::size_t kBatch = 32;
    fi_cq_data_entry entries[kBatch];
    const ssize_t got = fi_cq_read(queue_.get(), entries, std::min(kBatch, completions.size()));
    if (got == -FI_EAVAIL) {
      fi_cq_err_entry entry{};
      fi_cq_readerr(queue_.get(), &entry, 0);
      failed_ = entry.err;
    }
    std::size_t count = 0;
    if (failed_ != 0)
      completions[count++] = {.kind = fabric::Completion::Kind::failed, .error = std::exchange(failed_, 0)};
    for (ssize_t i = 0; i < got && count < completions.size(); ++i) {
      if ((entries[i].flags & FI_REMOTE_CQ_DATA) != 0) {
        completions[count++] = {.kind = fabric::Completion::Kind::arrived,
                                .immediate = static_cast<std::uint32_t>(entries[i].data)};
      } else if (entries[i].op_context != nullptr) {
        auto* context = static_cast<Context*>(entries[i].op_context);
        completions[count++] = {.cookie = context->cookie};
        free_.push_back(context);
      }
    }
    return count;
  }

  std::string describe_error(int code) const override { return fi_strerror(code); }
  void close() override {
    endpoint_.reset();
    queue_.reset();
    addresses_.reset();
  }
  ~PlainLibfabric() override { close(); }

 private:
  tl::unexpected<Error> error(std::string_view what, long code) const {
    return fail(ErrorCode::io, "plain libfabric '{}': {}: {}", capabilities_.fabric, what,
                fi_strerror(static_cast<int>(-code)));
  }

  Info info_;
  Fid<fid_fabric> fabric_;
  Fid<fid_domain> domain_;
  Fid<fid_cq> queue_;
  Fid<fid_av> addresses_;
  Fid<fid_ep> endpoint_;
  fabric::Capabilities capabilities_;
  std::vector<std::byte> address_;
  fi_addr_t peer_ = FI_ADDR_NOTAVAIL;
  std::uint64_t next_key_ = 1;
  std::vector<Context> contexts_ = std::vector<Context>(kContexts);
  std::vector<Context*> free_;
  int failed_ = 0;
};

Status PlainLibfabric::open(const std::string& provider, const std::string& host) {
  capabilities_.fabric = provider;
  for (Context& context : contexts_) free_.push_back(&context);
  const Info hints(fi_allocinfo());
  hints->caps = FI_MSG | FI_RMA;
  hints->mode = FI_CONTEXT | FI_CONTEXT2;
  hints->ep_attr->type = FI_EP_RDM;
  hints->domain_attr->mr_mode =
      FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT;
  hints->domain_attr->cq_data_size = 4;
  hints->domain_attr->resource_mgmt = FI_RM_ENABLED;
  hints->fabric_attr->prov_name = strdup(provider.c_str());
  const bool at_host = provider != "shm" && provider != "efa";
  fi_info* found = nullptr;
  if (int code = fi_getinfo(FI_VERSION(1, 17), at_host ? host.c_str() : nullptr, nullptr,
                            at_host ? FI_SOURCE : 0, hints.get(), &found)) {
    return error("fi_getinfo", code);
  }
  info_.reset(found);
  fid_fabric* fabric = nullptr;
  fid_domain* domain = nullptr;
  fid_cq* queue = nullptr;
  fid_av* addresses = nullptr;
  fid_ep* endpoint = nullptr;
  fi_cq_attr queue_attributes{};
  queue_attributes.format = FI_CQ_FORMAT_DATA;
  queue_attributes.size = 2 * kContexts;
  queue_attributes.wait_obj = FI_WAIT_NONE;
  fi_av_attr table{};
  table.type = FI_AV_TABLE;
  int code = fi_fabric(found->fabric_attr, &fabric, nullptr);
  fabric_.reset(fabric);
  if (code == 0) code = fi_domain(fabric, found, &domain, nullptr);
  domain_.reset(domain);
  if (code == 0) code = fi_cq_open(domain, &queue_attributes, &queue, nullptr);
  queue_.reset(queue);
  if (code == 0) code = fi_av_open(domain, &table, &addresses, nullptr);
  addresses_.reset(addresses);
  if (code == 0) code = fi_endpoint(domain, found, &endpoint, nullptr);
  endpoint_.reset(endpoint);
  if (code == 0) code = fi_ep_bind(endpoint, &addresses->fid, 0);
  if (code == 0) code = fi_ep_bind(endpoint, &queue->fid, FI_TRANSMIT | FI_RECV);
  if (code == 0) code = fi_enable(endpoint);
  std::size_t length = 1024;
  address_.resize(length);
  if (code == 0) code = fi_getname(&endpoint->fid, address_.data(), &length);
  if (code != 0) return error("opening it", code);
  address_.resize(length);
  capabilities_.max_write_bytes = found->ep_attr->max_msg_size;
  capabilities_.max_outstanding = kContexts;
  capabilities_.window = kContexts;
  return {};
}

}  // namespace

Result<std::shared_ptr<fabric::Fabric>> open_plain_libfabric(const std::string& provider,
                                                             const std::string& host) {
  auto opened = std::make_shared<PlainLibfabric>();
  if (auto ok = opened->open(provider, host); !ok) return pass(ok.error());
  return std::shared_ptr<fabric::Fabric>(std::move(opened));
}

}  // namespace switchyard::bench
