#include "fabric/verbs_queue_pair.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/random.h"
#include "fabric/verbs_memory.h"

namespace switchyard::fabric {
namespace {

// A peer that does not answer is given up after (kRetries + 1) x 4.096 µs x 2^kTimeout, about half a second.
constexpr std::uint8_t kTimeout = 14;
constexpr std::uint8_t kRetries = 6;
// A peer without a receive is asked again kRetries times, after 41 ms each: time for a thread that was not
// scheduled to refill them. (7 would mean for ever.)
constexpr std::uint8_t kNotReadyTimer = 24;
constexpr std::uint32_t kInlineBytes = 128;
constexpr std::uint8_t kHops = 64;

}  // namespace

Result<std::unique_ptr<VerbsQueuePair>> VerbsQueuePair::create(std::shared_ptr<VerbsDevice> device,
                                                               ibv_cq* completions, ibv_srq* receives,
                                                               std::uint32_t depth, VerbsMark mark) {
  std::unique_ptr<VerbsQueuePair> self(new VerbsQueuePair());
  ibv_qp_init_attr wanted{};
  // A device that cannot keep so much inside of a work request says so.
  for (std::uint32_t inline_bytes : {kInlineBytes, kInlineBytes / 2, 0u}) {
    wanted = {.send_cq = completions,
              .recv_cq = completions,
              .srq = receives,
              .cap = {.max_send_wr = depth, .max_send_sge = 1, .max_inline_data = inline_bytes},
              .qp_type = IBV_QPT_RC,
              .sq_sig_all = 0};
    self->pair_ =
        VerbsHandle<ibv_qp>(device->verbs.create_qp(device->domain.get(), &wanted), device->verbs.destroy_qp);
    if (self->pair_) break;
  }
  if (!self->pair_) {
    return fail(errno == ENOMEM ? ErrorCode::exhausted : ErrorCode::io,
                "fabric 'verbs': {} has no queue pair for another path: {}", device->name, strerror(errno));
  }
  self->pair_->qp_context = self.get();
  self->device_ = std::move(device);
  self->mark_ = mark;
  self->depth_ = depth;
  self->inline_bytes_ = wanted.cap.max_inline_data;
  self->posted_ = self->finished_ = mark.sequence;
  self->cookies_.resize(depth);
  if (auto ok = fill_random(std::as_writable_bytes(std::span(&self->first_packet_, 1))); !ok)
    return pass(ok.error());
  self->first_packet_ &= 0xff'ffff;

  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_INIT;
  attributes.port_num = self->device_->port.number;
  attributes.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
  if (!self->move(attributes, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS)) {
    return fail(ErrorCode::io, "fabric 'verbs': {}: a queue pair cannot be bound to port {}: {}",
                self->device_->name, self->device_->port.number, strerror(errno));
  }
  return self;
}

bool VerbsQueuePair::move(ibv_qp_attr& attributes, int mask) {
  const int error = device_->verbs.modify_qp(pair_.get(), &attributes, mask);
  if (error != 0) errno = error;
  return error == 0;
}

VerbsToken VerbsQueuePair::token() const {
  const VerbsPort& port = device_->port;
  return {.address = {.ethernet = port.ethernet, .lid = port.attributes.lid, .gid = port.gid},
          .queue_pair = pair_->qp_num,
          .first_packet = first_packet_,
          .mtu = port.attributes.active_mtu};
}

Status VerbsQueuePair::connect(const VerbsToken& peer) {
  const VerbsPort& port = device_->port;
  ibv_qp_attr receive{};
  receive.qp_state = IBV_QPS_RTR;
  receive.path_mtu = std::min(port.attributes.active_mtu, peer.mtu);
  receive.dest_qp_num = peer.queue_pair;
  receive.rq_psn = peer.first_packet;
  receive.max_dest_rd_atomic = 1;
  receive.min_rnr_timer = kNotReadyTimer;
  receive.ah_attr.port_num = port.number;
  receive.ah_attr.dlid = peer.address.lid;
  // InfiniBand needs the global header only to leave its subnet, or where the port says so.
  if (port.ethernet || (port.attributes.flags & IBV_QPF_GRH_REQUIRED) != 0 ||
      port.gid.global.subnet_prefix != peer.address.gid.global.subnet_prefix) {
    receive.ah_attr.is_global = 1;
    receive.ah_attr.grh.dgid = peer.address.gid;
    receive.ah_attr.grh.sgid_index = static_cast<std::uint8_t>(port.gid_index);
    receive.ah_attr.grh.hop_limit = kHops;
  }
  if (!move(receive, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                         IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER)) {
    const int error = errno;
    return fail(ErrorCode::io, "fabric 'verbs': {} cannot connect from GID {} {}: {}{}", device_->name,
                port.gid_index, port.gid_text, strerror(error),
                error == ETIMEDOUT || error == EHOSTUNREACH || error == ENETUNREACH
                    ? "; the peer's address cannot be resolved from there: check the route"
                    : "");
  }
  ibv_qp_attr send{};
  send.qp_state = IBV_QPS_RTS;
  send.sq_psn = first_packet_;
  send.timeout = kTimeout;
  send.retry_cnt = kRetries;
  send.rnr_retry = kRetries;
  send.max_rd_atomic = 1;
  if (!move(send, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                      IBV_QP_MAX_QP_RD_ATOMIC)) {
    return fail(ErrorCode::io, "fabric 'verbs': {}: a queue pair cannot start to send: {}", device_->name,
                strerror(errno));
  }
  connected_ = true;
  return {};
}

void VerbsQueuePair::stop() {
  if (broken_) return;
  broken_ = true;
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_ERR;
  // Fails only where the device is gone, and then there is nothing to stop.
  move(attributes, IBV_QP_STATE);
}

std::size_t VerbsQueuePair::post(std::span<const WriteRequest> requests, int& error) {
  const std::size_t count = std::min({requests.size(), kMaxChain, std::size_t{room()}});
  if (count == 0) return 0;
  std::array<ibv_send_wr, kMaxChain> chain;
  std::array<ibv_sge, kMaxChain> pieces;
  for (std::size_t i = 0; i < count; ++i) {
    const WriteRequest& request = requests[i];
    const std::uint32_t sequence = posted_ + static_cast<std::uint32_t>(i);
    ibv_send_wr& work = chain[i];
    work = {};
    work.next = i + 1 < count ? &chain[i + 1] : nullptr;
    work.wr_id = VerbsMark{mark_.generation, mark_.slot, sequence}.pack();
    work.opcode = request.has_immediate ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE;
    work.imm_data = htonl(request.immediate);
    work.wr.rdma.remote_addr = request.target_address;
    work.wr.rdma.rkey = static_cast<std::uint32_t>(request.target_key);
    if (i + 1 == count || sequence % kSignalEvery == 0) work.send_flags |= IBV_SEND_SIGNALED;
    if (request.bytes != 0) {
      const auto* memory = static_cast<const VerbsMemory*>(request.source_memory);
      pieces[i] = {reinterpret_cast<std::uint64_t>(request.source), static_cast<std::uint32_t>(request.bytes),
                   memory->local_key()};
      work.sg_list = &pieces[i];
      work.num_sge = 1;
      // Copied into the work request here and now: the device need not fetch it.
      if (request.bytes <= inline_bytes_ && memory->is_on_host()) work.send_flags |= IBV_SEND_INLINE;
    }
    cookies_[sequence % depth_] = request.cookie;
  }
  ibv_send_wr* refused = nullptr;
  error = ibv_post_send(pair_.get(), chain.data(), &refused);
  const std::size_t taken = error == 0 ? count : static_cast<std::size_t>(refused - chain.data());
  posted_ += static_cast<std::uint32_t>(taken);
  return taken;
}

}  // namespace switchyard::fabric
