#include "fabric/verbs_watch.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "fabric/verbs_queue_pair.h"

namespace switchyard::fabric {

Result<std::unique_ptr<VerbsWatch>> VerbsWatch::open(std::shared_ptr<VerbsDevice> device, std::string host) {
  auto self = std::make_unique<VerbsWatch>();
  self->channel_ = {device->verbs.create_comp_channel(device->context.get()),
                    device->verbs.destroy_comp_channel};
  if (!self->channel_)
    return fail(ErrorCode::exhausted, "making a completion channel failed: {}", strerror(errno));
  self->descriptor_ = epoll_create1(EPOLL_CLOEXEC);
  for (const int fd : {self->channel_->fd, device->context->async_fd}) {
    epoll_event readable{.events = EPOLLIN, .data = {.fd = fd}};
    if (self->descriptor_ < 0 || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0 ||
        epoll_ctl(self->descriptor_, EPOLL_CTL_ADD, fd, &readable) != 0)
      return fail(ErrorCode::io, "watching its events failed: {}", strerror(errno));
  }
  self->device_ = std::move(device);
  self->host_ = std::move(host);
  return self;
}

VerbsWatch::~VerbsWatch() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

bool VerbsWatch::take_bell(ibv_cq* queue) {
  ibv_cq* rung = nullptr;
  void* context = nullptr;
  unsigned count = 0;
  while (device_->verbs.get_cq_event(channel_.get(), &rung, &context) == 0) ++count;
  // What is not acknowledged keeps the queue from being destroyed.
  if (count != 0) device_->verbs.ack_cq_events(queue, count);
  return count != 0;
}

void VerbsWatch::read() {
  ibv_async_event event{};
  while (device_->verbs.get_async_event(device_->context.get(), &event) == 0) {
    take(event);
    device_->verbs.ack_async_event(&event);
  }
}

void VerbsWatch::take(const ibv_async_event& event) {
  switch (event.event_type) {
    case IBV_EVENT_PORT_ERR:
    case IBV_EVENT_PORT_ACTIVE:
    case IBV_EVENT_GID_CHANGE:
    case IBV_EVENT_LID_CHANGE:
      check_port();
      break;
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_PATH_MIG_ERR:
      // What it has under way comes back flushed; what is posted from now on fails at once.
      static_cast<VerbsQueuePair*>(event.element.qp->qp_context)->stop();
      break;
    case IBV_EVENT_DEVICE_FATAL:
      loss_ = "the device has failed";
      break;
    case IBV_EVENT_CQ_ERR:
      loss_ = "its completion queue has failed";
      break;
    case IBV_EVENT_SRQ_ERR:
      loss_ = "its queue of receives has failed";
      break;
    default:
      break;
  }
}

// Up is a port that is active and still has the address that the peers know.
void VerbsWatch::check_port() {
  const VerbsPort& known = device_->port;
  const auto port =
      query_verbs_port(device_->verbs, device_->context.get(), known.number, known.gid_index, host_);
  port_is_up_ = port && std::memcmp(&port->gid, &known.gid, sizeof known.gid) == 0 &&
                port->attributes.lid == known.attributes.lid;
  log::debug("fabric 'verbs': {} is {}", device_->name,
             port_is_up_ ? "up"
             : port      ? "down: its address has changed"
                         : "down: " + port.error().message);
}

}  // namespace switchyard::fabric
