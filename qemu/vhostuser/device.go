package vhostuser

// Feature bits that every device here has: virtio 1.2, section 6, and
// VHOST_USER_F_PROTOCOL_FEATURES of vhost-user.rst.
const (
	FeatureIndirectDesc uint64 = 1 << 28 // VIRTIO_F_INDIRECT_DESC
	FeatureEventIdx     uint64 = 1 << 29 // VIRTIO_F_EVENT_IDX
	featureProtocol     uint64 = 1 << 30 // VHOST_USER_F_PROTOCOL_FEATURES: never seen by the driver
	FeatureVersion1     uint64 = 1 << 32 // VIRTIO_F_VERSION_1
)

// Device is what a virtio device is to this package.
//
// A queue is started when the guest's driver has set it up, and again after the
// virtual machine was paused or its driver has begun anew (then Queue.Start is 0).
// For one queue, calls come in the order StartQueue, Process any number of times,
// StopQueue; none of them overlap. Different queues are independent.
type Device interface {
	// Info describes the device; it must be the same at every call.
	Info() Info

	// StartQueue hands a queue over. The device may keep it, and call its Run,
	// until StopQueue.
	StartQueue(q *Queue)

	// Process takes chains off the queue with Next and gives them back with Push
	// until there are no more, or nothing is left to do with them. It must not
	// block. An error stops the queue.
	Process(q *Queue) error

	// StopQueue says that q is processed no more; err says why if the queue broke.
	StopQueue(q *Queue, err error)

	// Disconnected says that the front end is gone, and its guest with it. All
	// queues have been stopped.
	Disconnected()
}

// Info describes a device.
type Info struct {
	Features uint64 // the device type's own feature bits
	Queues   int    // how many queues it has: at most 256
	Config   []byte // its configuration space, little-endian; nil if it has none
}
